"""The results for a terminal, and as Markdown: what `bench/results.json` holds, in tables."""

from src.cost import cpu
from src.reporting.tables import markdown


def text(results):
    """All tables, each under a line that says what it is."""
    blocks = [conditions(results)]
    blocks += [f"{_title(setting)}\n\n{times(results, setting)}" for setting in results["settings"]]
    if "scaling" in results:
        blocks += [
            f"Scaling, one thread\n\n{scaling(results)}",
            f"Extraction of a folder\n\n{extraction(results['scaling']['extraction'])}",
        ]
    return "\n\n".join(blocks)


def conditions(results):
    found = results["conditions"]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    kernels = cpu.integer_kernels(found["cpu"]["extensions"])
    return (
        f"{found['cpu']['model']}, {found['cpu']['cores']} CPUs, integer kernels: {kernels}\n{versions}\n"
        f"encoder {found['encoder']}; accuracy over {found['test_utterances']} test utterances of "
        f"{found['test_speakers']} speakers"
    )


def times(results, setting):
    """One setting: a row a model, its accuracy beside its time."""
    header = [
        "model",
        "ms",
        "quartiles",
        "× SpeechBrain [95 %]",
        "first call, ms",
        "×",
        "cosine",
        "lowest",
        "EER, %",
        "MB",
    ]
    rows = []
    for name, taken in setting["models"].items():
        model, ci = results["models"][name], taken["speedup_ci"]
        rows.append(
            [
                model["title"],
                f"{taken['median_ms']:.1f}",
                f"{taken['low_ms']:.1f} to {taken['high_ms']:.1f}",
                f"{taken['speedup']:.2f} [{ci['low']:.2f}, {ci['high']:.2f}]",
                f"{taken['first_ms']:.1f}",
                f"{taken['first_speedup']:.2f}",
                *("–" if model[key] is None else f"{model[key]:.4f}" for key in ("cosine_mean", "cosine_min")),
                f"{100 * model['eer']:.2f}",
                f"{model['size_mb']:.2f}",
            ]
        )
    return markdown(header, rows)


def scaling(results):
    """ms for a second of audio in each setting, and the worst step."""
    found = results["scaling"]
    columns = [(f"{point['seconds']:g} s", point) for point in found["lengths"]]
    columns += [(f"{point['seconds']:g} s × {point['batch']}", point) for point in found["batches"]]
    header = ["ms for 1 s of audio", *(label for label, _ in columns), "worst step, length", "batch"]
    rows = []
    for name, worst in found["worst_step"].items():
        each = [point["models"][name]["median_ms"] / (point["seconds"] * point["batch"]) for _, point in columns]
        rows.append(
            [
                results["models"][name]["title"],
                *(f"{value:.2f}" for value in each),
                *("–" if worst[key] is None else f"{worst[key]:.2f}" for key in ("seconds", "batch")),
            ]
        )
    return markdown(header, rows)


def extraction(runs):
    header = ["model", "workers", "utterances", "utterances/s", "real-time factor", "peak MB"]
    return markdown(
        header,
        [
            [
                run["model"],
                run["workers"],
                run["utterances"],
                f"{run['utterances_per_second']:.1f}",
                f"{run['real_time_factor']:.5f}",
                "–" if run["peak_mb"] is None else f"{run['peak_mb']:.0f}",
            ]
            for run in runs
        ],
    )


def _title(setting):
    threads = "1 thread" if setting["threads"] == 1 else f"{setting['threads']} threads"
    return f"{threads}, {setting['seconds']:g} s, batch {setting['batch']}: {setting['rounds']} rounds"
