"""The named choices and limits that flags and functions share; imports nothing heavy.

The module that acts on a choice re-exports it.
"""

from typing import Literal

#: What is predicted: the next title (seqrec), or whether the user likes one (ctr).
Task = Literal["seqrec", "ctr"]

#: The tokens that the loss scores: prompt and answer, or the answer alone.
Scored = Literal["all", "answer"]

#: The gradient whose norm is taken: of lora_B of the last v_proj, or of all of LoRA.
Which = Literal["last_v_lora_b", "all_lora"]

#: The precision of a model's weights and activations.
Dtype = Literal["float32", "bfloat16"]

#: What a backward pass keeps of each layer; it computes the rest again.
Remat = Literal["products", "layers"]

#: Where the scores of attention are: whole in memory, or inside a kernel of TPUs.
AttentionKind = Literal["scores", "splash"]

#: The solver of the transport problem inside a search.
SolverName = Literal["auto", "exact", "sinkhorn"]

#: How much work a lower bound gets: no bound, one short ascent, or all.
BoundKind = Literal["none", "quick", "full"]

#: How far apart two embeddings are: ||x - y||, or sqrt(2 - 2 cos(x, y)).
Metric = Literal["euclidean", "cosine"]

#: What distances are divided by: the largest of all, or their median.
Scale = Literal["max", "median"]

#: The method that every other is compared with.
BASELINE = "random"

#: What to do with training examples that repeat another's texts.
Duplicates = Literal["refuse", "keep"]

#: What to do with training examples that copy a validation or test example.
Leakage = Literal["refuse", "drop", "keep"]

#: What to do with records that cannot be used.
BadRows = Literal["refuse", "skip"]

#: What to do with texts of too many tokens.
TooLong = Literal["refuse", "cut", "skip"]

#: The adapters that fine-tuning keeps: of the lowest validation loss, of the last step,
#: or their mean over the last tenth of the steps.
Keep = Literal["best", "last", "average"]

#: The raw formats that `goracs prepare` reads.
FormatName = Literal[
    "movielens-100k",
    "movielens-1m",
    "movielens-csv",
    "amazon-2014",
    "amazon-2018",
    "amazon-2023",
    "steam",
    "goodreads",
    "mind",
    "kuairec",
    "yelp",
    "recbole",
    "csv",
    "jsonl",
    "parquet",
]

#: What orders interactions: their times, their place in the file, or chance.
Order = Literal["time", "file", "random"]

#: The largest share of a raw file's lines that may be unreadable.
MAX_BAD = 0.01
