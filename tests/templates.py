"""The chat templates that TRL has a variant with marks of, and how tools are scored.

`make parity` compares each with TRL's own; docs/chat.md lists them.
"""

SAME = "as in TRL"
NONE = "no tools"
TEXT = "arguments must be text"
#: As in TRL, but for chats whose answers are written otherwise once more turns follow.
PARTLY = "as in TRL, or refused"
OTHER = "otherwise, or refused"
#: By the name in TRL: the models, and chats with tools.
TEMPLATES = {
    "cohere": ("Aya Expanse", NONE),
    "cohere2": ("Tiny Aya", NONE),
    "deepseek_r1_distill": ("DeepSeek R1, distilled", SAME),
    "deepseekv3": ("DeepSeek V3", TEXT),
    "diffusion_gemma": ("DiffusionGemma", OTHER),
    "gemma": ("Gemma 1 and 2", NONE),
    "gemma3": ("Gemma 3", NONE),
    "glm4moe": ("GLM 4 MoE", PARTLY),
    "gptoss": ("gpt-oss", PARTLY),
    "idefics3": ("Idefics 3", NONE),
    "lfm2": ("LFM 2", SAME),
    "lfm2_v2": ("LFM 2, later", SAME),
    "llama3": ("Llama 3", SAME),
    "llava_next": ("LLaVA-NeXT", NONE),
    "muse_glimmer": ("Muse Glimmer", SAME),
    "nemotron_3_5_lightning": ("Nemotron 3.5 Lightning", PARTLY),
    "nemotron_3_nano": ("Nemotron 3 Nano", PARTLY),
    "nemotron_3_super": ("Nemotron 3 Super", PARTLY),
    "nemotron_3_ultra": ("Nemotron 3 Ultra", PARTLY),
    "phi3": ("Phi 3", SAME),
    "phi3_5": ("Phi 3.5", SAME),
    "qwen2_5": ("Qwen 2.5", SAME),
    "qwen2_5_vl": ("Qwen 2.5 VL", SAME),
    "qwen3": ("Qwen 3", SAME),
    "qwen3_5_nothink": ("Qwen 3.5, without thinking", SAME),
    "qwen3_5_think": ("Qwen 3.5, with thinking", SAME),
    "qwen3_6": ("Qwen 3.6", SAME),
    "qwen3_8": ("Qwen 3.8", SAME),
    "qwen3_instruct_2507": ("Qwen 3 Instruct 2507", SAME),
    "qwen3_vl": ("Qwen 3 VL", SAME),
    "smolvlm": ("SmolVLM", NONE),
}
