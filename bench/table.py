"""The results for a terminal, and as Markdown: what `bench/results.json` holds, in tables."""

from src.reporting.tables import markdown


def text(results: dict) -> str:
    """All tables, each under a line that says what it is."""
    blocks = [conditions(results)]
    blocks += [f"{_title(setting)}\n\n{times(results, setting)}" for setting in results["settings"]]
    if "growth" in results:
        blocks += [
            f"Growth, one thread\n\n{growth(results)}",
            f"Extraction of a folder\n\n{extraction(results['growth']['extraction'])}",
        ]
    return "\n\n".join(blocks)


def conditions(results: dict) -> str:
    stated = results["conditions"]
    versions = ", ".join(f"{name} {version}" for name, version in stated["versions"].items())
    extensions = ", ".join(stated["cpu"]["extensions"]) or "none known"
    return (
        f"{stated['cpu']['model']}, {stated['cpu']['cores']} CPUs, {extensions}\n{versions}\n"
        f"encoder {stated['encoder']}; accuracy over {stated['test_utterances']} test utterances of "
        f"{stated['test_speakers']} speakers"
    )


def times(results: dict, setting: dict) -> str:
    """One setting: a row a model, its accuracy beside its time."""
    header = ["model", "ms", "quartiles", "× SpeechBrain [95 %]", "cosine", "lowest", "EER, %", "MB"]
    rows = []
    for name, taken in setting["models"].items():
        model, ci = results["models"][name], taken["speedup_ci"]
        rows.append(
            [
                model["title"],
                f"{taken['median_ms']:.1f}",
                f"{taken['low_ms']:.1f} to {taken['high_ms']:.1f}",
                f"{taken['speedup']:.2f} [{ci['low']:.2f}, {ci['high']:.2f}]",
                f"{model['cosine_mean']:.4f}",
                f"{model['cosine_min']:.4f}",
                f"{100 * model['eer']:.2f}",
                f"{model['size_mb']:.2f}",
            ]
        )
    return markdown(header, rows)


def growth(results: dict) -> str:
    """ms for a second of audio in each setting, and the worst step."""
    measured = results["growth"]
    columns = [(f"{point['seconds']:g} s", point) for point in measured["lengths"]]
    columns += [(f"{point['seconds']:g} s × {point['batch']}", point) for point in measured["batches"]]
    header = ["ms for 1 s of audio", *(label for label, _ in columns), "worst step, length", "batch"]
    rows = []
    for name, worst in measured["worst_step"].items():
        milliseconds = [
            point["models"][name]["median_ms"] / (point["seconds"] * point["batch"]) for _, point in columns
        ]
        rows.append(
            [
                results["models"][name]["title"],
                *(f"{value:.2f}" for value in milliseconds),
                *("–" if worst[key] is None else f"{worst[key]:.2f}" for key in ("seconds", "batch")),
            ]
        )
    return markdown(header, rows)


def extraction(runs: list[dict]) -> str:
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
