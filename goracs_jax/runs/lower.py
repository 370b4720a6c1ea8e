"""What the layers below all adapters make of texts, in a file that runs share."""

import hashlib
import math
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from goracs_jax.disk import reserve, room_for
from goracs_jax.files import digest, write_json
from goracs_jax.llm.lower import LowerTable, distinct, lower_pass, put, starts_of
from goracs_jax.llm.passes import results
from goracs_jax.llm.profile import batch_tokens
from goracs_jax.llm.tokens import Tokens
from goracs_jax.mesh import agree, leads, meet
from goracs_jax.models import Decoder
from goracs_jax.runs.identity import identity_of
from goracs_jax.runs.opened import Llm
from goracs_jax.runs.progress import TokensColumn, progress
from goracs_jax.runs.records import read_record
from goracs_jax.runs.revisions import revision_of
from goracs_jax.runs.say import say
from goracs_jax.runs.stages import PART_SECONDS

#: Free space that is left on the disk for all else that a run writes, in bytes.
SPARE = 1 << 30
#: The states of all tokens as they are in memory, and how far they are complete.
STATES, RECORD = "states.bin", "states.json"


def keep_states(
    folder: Path, llm: Llm, pools: Sequence[Tokens], reads: int
) -> LowerTable | None:
    """Run the layers below all adapters once, and keep what they make of texts.

    Where it stops it goes on; where it is complete nothing is computed.

    Args:
        folder: Where the states are kept, in a folder named by all they depend on.
        llm: The model with its adapters.
        pools: The texts.
        reads: How often texts will be read, all of them together.

    Returns:
        The states, memory-mapped; None where every layer is trained, and where nothing
        is kept yet and texts are read once at most or the disk has no room, which is
        said.
    """
    model, _ = llm.load()
    texts, layers = distinct(*pools), model.frozen_layers
    if not layers:
        return None
    content = hashlib.sha256(texts.ids.tobytes() + texts.offsets.tobytes()).hexdigest()
    # The adapter does not matter.
    base = {name: llm.identity[name] for name in ("model", "dtype")}
    depends_on = {**base, "layers": layers, "texts": content}
    identity = identity_of(depends_on, revision_of("lower-states"))
    home = folder / f"lower-states-{digest(identity)[:16]}"
    if reads <= texts.num_examples and not home.exists():
        return None
    shape = (len(texts.ids), model.config.hidden_size)
    dtype = model.embed.dtype
    size = math.prod(shape) * dtype.itemsize
    about = f"{size / 2**20:,.0f} MiB for {texts.num_examples} texts"
    folder.mkdir(parents=True, exist_ok=True)
    fits = home.exists() or shutil.disk_usage(folder).free >= size + SPARE
    if not agree(int(fits)):
        say(
            f"{folder}: no room for the states below layer {layers} ({about}), so "
            "these layers run in every step"
        )
        return None
    seconds = _complete(home, model, texts, shape, about)
    table = np.memmap(home / STATES, dtype, "r", shape=shape)
    return LowerTable(table, starts_of(texts), seconds)


def _complete(
    home: Path, model: Decoder, texts: Tokens, shape: tuple[int, int], about: str
) -> float:
    """Write what is missing of the states; return the seconds of all runs together."""
    run = lower_pass(model)
    batches = run.batches(texts, batch_tokens(model, "embedding", texts))
    plan = digest([batch.rows.tolist() for batch in batches])
    found = read_record(home / RECORD) or {}
    if not (home / STATES).exists() or found.get("plan") != plan:
        found = {"plan": plan, "batches": 0, "seconds": 0.0}
    done, seconds = agree(found["batches"]), found["seconds"]
    if done == len(batches):
        return seconds
    say(f"layers 0 to {model.frozen_layers - 1} run once: {about} in {home}")
    table = _open(home, model, shape, new=not done) if leads() else None
    work = np.cumsum([0, *(batch.work for batch in batches)]).tolist()
    started = marked = time.perf_counter()
    with progress(TokensColumn()) as bar:
        task = bar.add_task("lower layers", total=work[-1], completed=work[done])
        todo = zip(batches[done:], results(run, batches[done:]), strict=True)
        for count, (batch, states) in enumerate(todo, done + 1):
            if table is not None:
                put(table, texts, batch, states)
                now = time.perf_counter()
                if now - marked > PART_SECONDS or count == len(batches):
                    table.flush()
                    found |= {"batches": count, "seconds": seconds + now - started}
                    write_json(home / RECORD, found)
                    marked = now
            bar.update(task, completed=work[count])
    meet("lower states are kept")
    return found["seconds"]


def _open(
    home: Path, model: Decoder, shape: tuple[int, int], *, new: bool
) -> np.memmap:
    """Open the file to write to it; a new one in place of any that was there."""
    home.mkdir(parents=True, exist_ok=True)
    if new:  # a record that outlived its states would take empty rows for finished
        (home / RECORD).unlink(missing_ok=True)
        (home / STATES).unlink(missing_ok=True)
    mode = "w+" if new else "r+"
    with room_for(home):
        table = np.memmap(home / STATES, model.embed.dtype, mode, shape=shape)
    if new:
        reserve(home / STATES)
    return table
