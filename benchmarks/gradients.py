"""Speed of the gradient pass against its floors and against PyTorch.

    python benchmarks/gradients.py ours       bare forward, last_v_lora_b and all_lora
    python benchmarks/gradients.py torch      against transformers and the released way
    python benchmarks/gradients.py compile    seconds to compile 30 and 60 layers

SmolLM2-135M and MovieLens prompts of the demo; all their tokens are scored, or the
answer alone. Each part writes results/gradients_PART.json and a picture is drawn from
those that are there. A floor is the FLOPs of the matrix products over those of the bare
forward pass. The released way takes batches of 8 in random order, padded, and goes
backward once per example through the retained graph, down to the last layer alone.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, get_args

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from common import RESULTS, write
from flax import nnx

import goracs_jax as gx
from goracs_jax.data.demo import draw_records, fetch, movielens
from goracs_jax.llm.flops import Counts, forward_flops, gradient_flops
from goracs_jax.llm.gradients import Which, gradient_norms
from goracs_jax.llm.loss import mean_cross_entropy
from goracs_jax.llm.prompts import format_prompt
from goracs_jax.llm.tokens import Batch, LabelMode, Tokens, make_batches, ragged
from goracs_jax.models import Decoder, DecoderConfig

EXAMPLES, ROUNDS = 64, 2
ANSWER = ", answer scored"
TORCH_EXAMPLES, TORCH_BATCH = 64, 8


def prompts(size: int, labels: LabelMode = "all") -> Tokens:
    """Tokens of MovieLens prompts, drawn with a seed."""
    files = fetch()
    log, split = movielens(files)
    drawn = draw_records(log, split.train, size, np.random.default_rng(0))
    texts = [format_prompt(record) for record in drawn]
    tokenizer = gx.load_tokenizer(files.model)
    return gx.tokenize(texts, tokenizer, labels=labels, context=8192)


def in_turns(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each, one after the other, so that a slow minute slows all."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            started = time.perf_counter()
            jax.block_until_ready(run())
            seconds[name].append(time.perf_counter() - started)
            print(name, f"{seconds[name][-1]:.2f} s", flush=True)
    return seconds


def flops(config: DecoderConfig, batches: Sequence[Batch], most: int) -> dict:
    """FLOPs by kind of pass, padding included; `most` scored tokens an example."""
    lengths = np.concatenate([np.full(*batch.ids.shape) for batch in batches])
    every = Counts(lengths, lengths)
    few = every._replace(scored=np.minimum(lengths, most))
    found = {"forward": forward_flops(config, every)}
    for suffix, counts in (("", every), (ANSWER, few)):
        for which in get_args(Which):
            found[which + suffix] = gradient_flops(config, counts, which)
    return found


@jax.jit
def _losses(graph, state, ids, labels):
    model = nnx.merge(graph, state)
    following = jnp.pad(labels[:, 1:], ((0, 0), (0, 1)), constant_values=-100)
    one = lambda x, y: mean_cross_entropy(x, model.output_head, y)
    return jax.vmap(one)(model.hidden(ids), following).loss


@jax.jit
def _logits(graph, state, ids):
    return nnx.merge(graph, state)(ids)


def passes(
    model: Decoder, tokens: Tokens, answers: Tokens, batches: Sequence[Batch]
) -> dict[str, Callable[[], Any]]:
    """The bare forward pass, to losses and to logits, and the two gradients.

    Of the gradients also those of the answer's loss, whose prompt has no logits.
    """
    parts = nnx.split(model)
    every = partial(gradient_norms, model, tokens)
    few = partial(gradient_norms, model, answers)
    return {
        "forward": lambda: [_losses(*parts, b.ids, b.labels) for b in batches],
        "logits": lambda: _each(lambda b: _logits(*parts, b.ids), batches),
        "last_v_lora_b": every,
        "all_lora": partial(every, which="all_lora"),
        f"last_v_lora_b{ANSWER}": few,
        f"all_lora{ANSWER}": partial(few, which="all_lora"),
    }


def ours() -> dict[str, Any]:
    """Bare forward pass, then the two gradients, over the same batches."""
    tokens, answers = prompts(EXAMPLES), prompts(EXAMPLES, "answer")
    load = partial(gx.load_decoder, fetch().model, key=jax.random.key(0))
    model, batches = load(), make_batches(tokens)
    runs = passes(model, tokens, answers, batches)
    rounded = passes(load(dtype=jnp.bfloat16), tokens, answers, batches)
    runs |= {f"{name}, bfloat16": run for name, run in rounded.items()}
    first = in_turns(runs, 1)
    seconds = in_turns(runs, ROUNDS)
    median = {name: float(np.median(times)) for name, times in seconds.items()}
    bare = min(median["forward"], median["logits"])
    counted = flops(model.config, batches, int(answers.scored.max()))
    padded = sum(batch.ids.size for batch in batches)
    return {
        "examples": EXAMPLES,
        "tokens": int(tokens.lengths.sum()),
        "padding_waste": 1 - float(tokens.lengths.sum()) / padded,
        "shapes": sorted({batch.ids.shape for batch in batches}),
        "seconds": seconds,
        "first_seconds": {name: times[0] for name, times in first.items()},
        "tokens_per_second": {n: tokens.lengths.sum() / t for n, t in median.items()},
        "gflops_per_second": {n: counted[n] / median[n] / 1e9 for n in counted},
        "ratio": {n: median[n] / bare for n in counted if n != "forward"},
        "floor": {n: counted[n] / counted["forward"] for n in counted},
    }


def _each(run: Callable[[Batch], jax.Array], batches: Sequence[Batch]) -> int:
    """One result at a time: all logits of all batches would not fit."""
    for batch in batches:
        jax.block_until_ready(run(batch))
    return 0


def compile_seconds() -> dict[str, Any]:
    """Seconds of the first call less those of the second, by number of layers."""
    tokens = ragged([[1] * 32], [[1] * 32])
    figures = {}
    for which in get_args(Which):
        for layers in (30, 60):
            config = DecoderConfig.tiny(num_layers=layers)
            model = Decoder(config, key=jax.random.key(0))
            run = lambda model=model, which=which: gradient_norms(
                model, tokens, which=which
            )
            first, second = in_turns({f"{which} {layers}": run}, 2).popitem()[1]
            figures[f"{which}, {layers} layers"] = first - second
    return {"seconds": figures}


def torch_model(model: Decoder) -> Any:
    """The same weights and adapters as transformers and PEFT hold them."""
    import peft
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    c = model.config
    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=c.vocab_size,
            hidden_size=c.hidden_size,
            intermediate_size=c.intermediate_size,
            num_hidden_layers=c.num_layers,
            num_attention_heads=c.num_heads,
            num_key_value_heads=c.num_kv_heads,
            head_dim=c.head_dim,
            max_position_embeddings=c.max_positions,
            rms_norm_eps=c.norm_eps,
            tie_word_embeddings=c.tie_embeddings,
            rope_parameters={"rope_type": "default", "rope_theta": c.rope.theta},
        )
    ).eval()
    lora = peft.LoraConfig(
        r=model.lora.r,
        lora_alpha=int(model.lora.alpha),
        target_modules=["q_proj", "v_proj"],
    )
    theirs = peft.get_peft_model(theirs, lora).eval()
    state = nnx.to_pure_dict(nnx.state(model))
    layers, put = state["layers"], {}
    for i in range(c.num_layers):
        stem = f"base_model.model.model.layers.{i}."
        attention, mlp = layers["attention"], layers["mlp"]
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            adapted = name in model.lora.targets
            inner = ".base_layer" if adapted else ""
            ours = attention[name]
            put[f"{stem}self_attn.{name}{inner}.weight"] = ours["kernel"][i].T
            if adapted:
                for a, b in (("lora_A", "lora_a"), ("lora_B", "lora_b")):
                    put[f"{stem}self_attn.{name}.{a}.default.weight"] = ours[b][i].T
        for name in ("gate_proj", "up_proj", "down_proj"):
            put[f"{stem}mlp.{name}.weight"] = mlp[name]["kernel"][i].T
        for ours_name, name in (
            ("attention_norm", "input_layernorm"),
            ("mlp_norm", "post_attention_layernorm"),
        ):
            put[f"{stem}{name}.weight"] = layers[ours_name]["weight"][i]
    put["base_model.model.model.embed_tokens.weight"] = state["embed"]
    put["base_model.model.lm_head.weight"] = model.output_head
    put["base_model.model.model.norm.weight"] = state["norm"]["weight"]
    tensors = {k: torch.from_numpy(np.array(v, np.float32)) for k, v in put.items()}
    theirs.load_state_dict(tensors, strict=True)
    return theirs


def released_way(theirs: Any, tokens: Tokens) -> np.ndarray:
    """Norms for lora_B of the last v_proj: one backward per example of a batch."""
    import torch

    last = f"layers.{theirs.config.num_hidden_layers - 1}.self_attn.v_proj.lora_B"
    for name, weight in theirs.named_parameters():
        weight.requires_grad_(last in name)
    (theta,) = [w for w in theirs.parameters() if w.requires_grad]
    norms = np.empty(tokens.num_examples, np.float32)
    order = np.random.default_rng(1).permutation(tokens.num_examples)
    for rows in order.reshape(-1, TORCH_BATCH):
        ids, labels = padded(tokens, rows)
        logits = theirs(input_ids=ids, use_cache=False).logits
        for place, row in enumerate(rows):
            loss = torch.nn.functional.cross_entropy(
                logits[place, :-1], labels[place, 1:]
            )
            (gradient,) = torch.autograd.grad(loss, theta, retain_graph=True)
            norms[row] = float(gradient.norm())
    return norms


def padded(tokens: Tokens, rows: np.ndarray) -> tuple[Any, Any]:
    """A batch as torch takes it, padded on the right to its longest example."""
    import torch

    time_ = int(tokens.lengths[rows].max())
    ids = np.zeros((len(rows), time_), np.int64)
    labels = np.full((len(rows), time_), -100, np.int64)
    for place, row in enumerate(rows):
        span = slice(tokens.offsets[row], tokens.offsets[row + 1])
        ids[place, : tokens.lengths[row]] = tokens.ids[span]
        labels[place, : tokens.lengths[row]] = tokens.labels[span]
    return torch.from_numpy(ids), torch.from_numpy(labels)


def against_torch() -> dict[str, Any]:
    """The bare forward pass and the norms, on the same examples and weights."""
    import torch

    tokens = prompts(TORCH_EXAMPLES)
    model = gx.load_decoder(fetch().model, key=jax.random.key(0))
    theirs = torch_model(model)
    parts, batches = nnx.split(model), make_batches(tokens)
    order = np.argsort(-tokens.lengths)
    one = padded(tokens, order[:TORCH_BATCH])[0]

    def their_forward() -> None:
        with torch.no_grad():
            for rows in order.reshape(-1, TORCH_BATCH):
                theirs(input_ids=padded(tokens, rows)[0], use_cache=False)

    runs: dict[str, Callable[[], Any]] = {
        "ours, logits": lambda: _each(lambda b: _logits(*parts, b.ids), batches),
        "transformers, logits": their_forward,
        "ours, norms": lambda: gradient_norms(model, tokens),
        "released way, norms": lambda: released_way(theirs, tokens),
    }
    _each(lambda b: _logits(*parts, b.ids), batches)
    norms = gradient_norms(model, tokens)
    with torch.no_grad():
        theirs(input_ids=one, use_cache=False)
    seconds = in_turns(runs, 2)
    best = {name: min(times) for name, times in seconds.items()}
    expected = released_way(theirs, tokens)
    return {
        "examples": TORCH_EXAMPLES,
        "torch": torch.__version__,
        "precision": "float32",
        "seconds": seconds,
        "forward_speed": best["transformers, logits"] / best["ours, logits"],
        "norms_speed": best["released way, norms"] / best["ours, norms"],
        "largest_relative_difference": float(np.abs(norms / expected - 1).max()),
        "bfloat16_forward_seconds": _bfloat16_seconds(theirs, tokens, one),
    }


def _bfloat16_seconds(theirs: Any, tokens: Tokens, ids: Any) -> dict[str, float]:
    """Seconds of one forward pass over a row of 64 tokens in each precision."""
    import torch

    row = np.asarray(ids[:1, :64], np.int32)
    found = {}
    for name in ("float32", "bfloat16"):
        model = gx.load_decoder(
            fetch().model, key=jax.random.key(0), dtype=jnp.dtype(name)
        )
        parts = nnx.split(model)
        run = lambda parts=parts: _logits(*parts, row)
        theirs.to(getattr(torch, name))

        def their_run() -> None:
            with torch.no_grad():
                theirs(input_ids=ids[:1, :64], use_cache=False)

        jax.block_until_ready(run())
        seconds = in_turns({f"ours {name}": run, f"transformers {name}": their_run}, 2)
        found |= {key: min(times) for key, times in seconds.items()}
    return found


def draw() -> None:
    """Ratios over the bare forward pass with their floors, and seconds beside torch."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.4), layout="tight")
    for axis, part in zip(axes, ("ours", "torch"), strict=True):
        path = RESULTS / f"gradients_{part}.json"
        if not path.exists():
            axis.set_axis_off()
            continue
        record = json.loads(path.read_text())
        if part == "ours":
            names = list(record["ratio"])
            axis.barh(names, [record["ratio"][n] for n in names], label="measured")
            for i, name in enumerate(names):
                floor = record["floor"][name]
                label = None if i else "FLOP floor"
                axis.vlines(floor, i - 0.4, i + 0.4, "k", "dotted", label=label)
            axis.set_xlabel("time / bare forward pass")
            axis.legend(loc="lower right")
        else:
            names = list(record["seconds"])
            axis.barh(names, [min(record["seconds"][n]) for n in names])
            axis.set_xlabel(f"seconds, {record['examples']} prompts")
    figure.savefig(RESULTS / "gradients.png", dpi=110)


PARTS = {"ours": ours, "torch": against_torch, "compile": compile_seconds}


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(description=str(__doc__))
    parser.add_argument("parts", nargs="+", choices=PARTS)
    for name in parser.parse_args().parts:
        figures = PARTS[name]()
        path = write(f"gradients_{name}", figures)
        print(json.dumps({k: v for k, v in figures.items() if k != "seconds"}), path)
    draw()


if __name__ == "__main__":
    main()
