"""Chats of many kinds, templates in the form of published ones, and a tokenizer."""

import re
from itertools import pairwise

from tiny import WORDS, train_bpe
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from goracs_jax.data.examples import read_examples, written
from goracs_jax.llm.template_choice import TemplateChoice
from goracs_jax.llm.tokenization import load_tokenizer, tokenize

# In the form of SmolLM2's: ChatML, with a system turn where none is given.
CHATML = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + "
    "'\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# In the form of Mistral's: answers have no opening, and turns must alternate.
INST = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)
# As above, but a space behind the end parts the turns: Mistral's of 7B v0.1.
INST_SPACED = INST.replace(
    "' ' + message['content'] + eos_token", "message['content'] + eos_token + ' '"
)
# Both once more, with their answers marked.
CHATML_MARKED = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n'}}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' + '\n'}}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' + '\n'}}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
INST_MARKED = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{% generation %}{{ ' ' + message['content'] + eos_token }}"
    "{% endgeneration %}{% endif %}{% endfor %}"
)
# TRL's variant of LLaVA-NeXT, in this form too, leaves the space out.
INST_SPACED_MARKED = INST_MARKED.replace(
    "' ' + message['content'] + eos_token }}{% endgeneration %}",
    "message['content'] + eos_token }}{% endgeneration %}{{ ' ' }}",
)


def said(*pairs):
    """Messages, from pairs such as ("user", "Hi.")."""
    return [{"role": role, "content": content} for role, content in pairs]


TURNS = {
    "one": said(("user", "Which one?"), ("assistant", "That one.")),
    "two": said(
        ("user", "hi"), ("assistant", "yo"), ("user", "and?"), ("assistant", "so.")
    ),
    "spaces": said(
        ("user", " hi\n"),
        ("assistant", "\n\n yo \n"),
        ("user", "x"),
        ("assistant", "  z"),
    ),
    "thinking": said(
        ("user", "hi"),
        ("assistant", "<think>\nhm\n</think>\n\nyo"),
        ("user", "and?"),
        ("assistant", "<think>\nwell\n</think>\n\nso."),
    ),
    "letters": said(("user", "naïve 😀"), ("assistant", "théâtre 😀😀")),
    "open": said(("user", "hi"), ("assistant", "yo 😀"), ("user", "and?")),
}
WITH_SYSTEM = {
    "system": said(("system", "Be brief."), *[("user", "hi"), ("assistant", "yo")]),
    "system, two": said(("system", "Be brief."))
    + said(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")),
}


def called(content, x):
    """An answer that calls a tool, and what that returns."""
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": x}}}
    answer = {"role": "assistant", "content": content, "tool_calls": [call]}
    return [answer, *said(("tool", str(x)))]


WITH_TOOLS = {
    "one": [*said(("user", "f?")), *called("", 1), *said(("assistant", "It is 1."))],
    "two": [
        *(*said(("user", "f?")), *called("hm", 1), *said(("assistant", "It is 1."))),
        *(*said(("user", "and?")), *called("", 2), *said(("assistant", "It is 2."))),
    ],
    "thinking": [
        *(*said(("user", "f?")), *called("<think>\na\n</think>\n\nhm", 1)),
        *said(("assistant", "<think>\nb\n</think>\n\nIt is 1."), ("user", "and?")),
        *called("<think>\nc\n</think>\n\nok", 2),
        *said(("assistant", "<think>\nd\n</think>\n\nIt is 2.")),
    ],
}


def write_tokenizer(folder, template, **config):
    """A byte-level tokenizer that has the control tokens of a chat template whole."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    train_bpe(tokenizer, [WORDS])
    control = re.findall(r"<\|?[a-z_]+\|?>|<｜[^<>]+｜>|\[/?INST\]", template)
    tokenizer.add_special_tokens(["<bos>", *sorted({*control} - {"<think>"})])
    names = {"bos_token": "<bos>", "eos_token": "<eos>", **config}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    fast.chat_template = template
    fast.save_pretrained(folder)
    return folder


def scored_texts(folder, records, scored="answer", name=None):
    """The whole text and the scored part of each record, decoded from tokens."""
    examples, tokenizer = read_examples(records), load_tokenizer(folder)
    template = TemplateChoice.read(name).of(examples[0].form, tokenizer)
    texts = [*written(examples, lambda said: template.whole(said, scored))]
    places = [example.place for example in examples]
    found = tokenize(texts, tokenizer, labels=scored, context=999, places=places)
    parts = [slice(*pair) for pair in pairwise(found.offsets)]
    decode = lambda ids: tokenizer.decode(ids[ids >= 0].tolist())
    return [(decode(found.ids[p]), decode(found.labels[p])) for p in parts]
