"""Tables of the benchmarks that prepare data or run a language model over it."""

from figures import load, markdown


def demo() -> str:
    """Return the table that `goracs demo` prints, and what the run took."""
    figures = load("demo")
    names = ("objective", "lower_bound", "mean_distance", "mean_grad_norm")
    head = ["method", "POO exact", "lower bound", "mean distance", "mean gradient norm"]
    rows = [
        [row["method"], *(f"{row[name]:.4f}" for name in names)]
        for row in figures["table"]
    ]
    lines = markdown(head, rows)
    sizes = figures["sizes"]
    lines.append(
        f"\n{figures['budget']} of {sizes['train']} examples are selected for "
        f"{sizes['valid']} validation examples with lambda {figures['lambda']}. This "
        f"takes {figures['wall_seconds']:.0f} s and "
        f"{figures['peak_memory_mib'] / 1024:.1f} GiB on {figures['cores']} cores; "
        f"{figures['seconds']['gradient-norms']:.0f} s of them are for the gradient "
        "norms of a 135M-parameter LLM (`benchmarks/demo.py`)."
    )
    return "\n".join(lines)


def gradients() -> str:
    """Return the speed of gradient passes, with their floors and PyTorch."""
    ours, theirs = load("gradients_ours"), load("gradients_torch")
    speed = ours["tokens_per_second"]
    rows = [
        [
            name,
            f"{ours['ratio'].get(name, 1):.2f}",
            f"{ours['floor'][name]:.2f}",
            *(f"{speed[name + kind]:.0f}" for kind in ("", ", bfloat16")),
        ]
        for name in ours["floor"]
    ]
    head = ["pass", "time / bare forward pass", "FLOPs / bare forward pass"]
    head += ["tokens/s", "tokens/s, bfloat16"]
    waste, gain = 100 * ours["padding_waste"], theirs["norms_speed"]
    return "\n".join(
        [
            *markdown(head, rows),
            f"\nSmolLM2-135M runs over {ours['examples']} MovieLens prompts on "
            f"{ours['cores']} cores; {waste:.1f} % of the tokens are padding. On "
            f"{theirs['examples']} prompts, last_v_lora_b is {gain:.2f} times as fast "
            "as PyTorch with one backward pass per example (batches of 8, graph "
            f"retained), and the bare forward pass is {theirs['forward_speed']:.2f} "
            "times as fast as that of transformers (`benchmarks/gradients.py`).",
        ]
    )


def limits() -> str:
    """Return the FLOPs, bytes and limits of the gradient passes on three devices."""
    found = load("limits")
    rows = [
        [
            name,
            device,
            f"{row['flops'] / 1e6:.0f}",
            f"{row['bytes'] / 1e6:.2f}",
            f"{row['us_by_flops']:.2f}",
            f"{row['us_by_bytes']:.2f}",
            row["bound"],
            f"{found['measured_us'][name]:.0f}" if device == "CPU" else "",
        ]
        for name, devices in found["passes"].items()
        for device, row in devices.items()
    ]
    head = ["pass", "device", "MFLOP", "MB", "by FLOPs, µs", "by bytes, µs", "bound by"]
    peaks = "; ".join(
        f"{name}: {d['flops'] / 1e12:.3g} TFLOP/s, {d['bandwidth'] / 1e9:.0f} GB/s, "
        f"{d['texts']} texts in a batch"
        for name, d in found["devices"].items()
    )
    return "\n".join(
        [
            *markdown([*head, "measured, µs"], rows),
            "\nAll values are for one token of SmolLM2-135M in texts of "
            f"{found['time']} tokens, of which all or the last {found['answer']} are "
            "scored. Numbers are float32 on the CPU and bfloat16 on the others. Peaks "
            f"are: {peaks}. Those of the CPU and the measured times are processor "
            f"seconds over {found['cores']} cores, best of {found['rounds']} rounds by "
            f"turns (load {found['load'][1]:.0f}); the others are published. Bytes are "
            "counted as if no cache kept anything, with rules that "
            "`benchmarks/limits.py` states.",
        ]
    )


def compiled() -> str:
    """Return the seconds to compile models of two depths."""
    found = load("gradients_compile")["seconds"]
    cells = "; ".join(f"{name}: {seconds:.1f} s" for name, seconds in found.items())
    return f"Compilation takes: {cells} (`benchmarks/gradients.py compile`)."


def proxy() -> str:
    """Return how alike passes rank examples."""
    record = load("proxy")
    first, *others = dict.fromkeys(
        name for pair in record["spearman"] for name in pair.split(" | ")
    )
    answer = "labels answer"
    cell = lambda one, other: (
        f"{record['spearman'][f'{one} | {other}']:.3f}"
        if f"{one} | {other}" in record["spearman"]
        else ""
    )
    rows = [[name, cell(first, name), cell(answer, name)] for name in others]
    head = ["pass", f"with {first}", f"with {answer}"]
    return "\n".join(
        [
            *markdown(head, rows),
            "\nValues are Spearman's correlations of the gradient norms of "
            f"{record['examples']} MovieLens prompts. The correlation of the norms of "
            f"{first} with the lengths of the prompts is {record['with_length']:.3f} "
            "(`benchmarks/proxy.py`).",
        ]
    )


def finetune() -> str:
    """Return the speed of LoRA fine-tuning and of PyTorch with PEFT."""
    record = load("finetune")
    speeds = [
        f"with the loss of {'all tokens' if labels == 'all' else 'the answer'}, "
        + " and ".join(
            f"{name.removesuffix(f', {labels}')} {speed:.0f}"
            for name, speed in record["median"].items()
            if name.endswith(f", {labels}")
        )
        + f", a ratio of {ratio:.2f}"
        for labels, ratio in record["ratio"].items()
    ]
    return (
        f"LoRA steps of {record['batch']} MovieLens prompts on SmolLM2-135M process, "
        f"in tokens per second: {'; '.join(speeds)} (`benchmarks/finetune.py`)."
    )


def evaluation() -> str:
    """Return the speed of the scorers of `goracs evaluate` and of their floors."""
    record = load("evaluate")
    rows = [
        [
            name,
            f"{part['examples_per_second']:.2f}",
            f"{part['floor_examples_per_second']:.2f}",
            f"{100 * part['share_of_floor']:.0f}",
        ]
        for name, part in record["parts"].items()
    ]
    head = ["part", "examples/s", "bare forward passes, examples/s", "share, %"]
    caption = (
        "\nThe share is the time of the bare forward passes over that of the part "
        "(`benchmarks/evaluate.py`)."
    )
    return "\n".join([*markdown(head, rows), caption])


def prepare() -> str:
    """Return the seconds and memory of preparing a million reviews."""
    record = load("prepare")
    runs = "; ".join(
        f"{name}: {run['seconds']:.0f} s, {run['peak_memory_mib'] / 1024:.2f} GiB"
        for name, run in record["runs"].items()
    )
    return (
        f"`goracs prepare` reads {record['lines']:,} made-up reviews in the format of "
        f"Amazon 2023, {record['reviews_mib']:.0f} MiB gzipped. Seconds and peak "
        f"memory are: {runs} (`benchmarks/prepare.py`)."
    )
