"""SpeechBrain's own training loop, for some steps on noise: python -m tests.encoder.training FOLDER"""

import sys
from pathlib import Path
from typing import Any

import torch

from src.encoder.load import prepare_speechbrain

RECIPE = Path(__file__).with_name("recipe.yaml")
SPEAKERS = ("ann", "bob", "eve")


def main(folder):
    prepare_speechbrain()
    import speechbrain as sb
    from hyperpyyaml import load_hyperpyyaml

    class SpeakerBrain(sb.core.Brain):
        def compute_forward(self, batch, stage):
            waveforms, lengths = batch[0].to(self.device), torch.ones(len(batch[0]), device=self.device)
            features = self.modules.mean_var_norm(self.modules.compute_features(waveforms), lengths)
            return self.modules.classifier(self.modules.embedding_model(features))

        def compute_objectives(self, predictions, batch, stage):
            self.hparams.lr_annealing.on_batch_end(self.optimizer)
            return self.hparams.compute_cost(predictions, batch[1][:, None].to(self.device))

        def on_stage_end(self, stage, stage_loss, epoch=None):
            if stage == sb.Stage.VALID:
                self.checkpointer.save_and_keep_only(meta={"ErrorRate": stage_loss}, num_to_keep=2)

    overrides = {"output_folder": folder, "data_folder": "D:\\speech\\Voxceleb"}
    with open(RECIPE) as file:
        hparams = load_hyperpyyaml(file, overrides)
    sb.core.create_experiment_directory(folder, RECIPE, overrides, save_env_desc=False)
    labels = sb.dataio.encoder.CategoricalEncoder()
    labels.load_or_create(
        path=Path(hparams["save_folder"], "label_encoder.txt"), from_iterables=[SPEAKERS], sequence_input=False
    )
    brain = SpeakerBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts={"device": "cpu"},
        checkpointer=hparams["checkpointer"],
    )
    batches: Any = [(0.1 * torch.randn(4, 8_000), torch.randint(3, (4,))) for _ in range(2)]
    loader = torch.utils.data.DataLoader(batches, batch_size=None)
    brain.fit(hparams["epoch_counter"], loader, loader, progressbar=False)


if __name__ == "__main__":
    main(sys.argv[1])
