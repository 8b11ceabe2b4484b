"""Chat templates by name, in the Jinja that Hugging Face tokenizers render."""

from coolbits.artifacts.errors import CoolbitsError
from coolbits.study.recipes.finetuning import Template

# Plain words, for a tokenizer without tokens of its own for roles. Both open with the token that opens a document.
_PLAIN = """{{ bos_token or '' }}{% for message in messages %}
{% if message['role'] == 'system' %}{{ message['content'] + '\\n' }}
{%- elif message['role'] == 'user' %}{{ 'Question: ' + message['content'] + '\\n' }}
{%- else %}{{ 'Answer: ' + message['content'] + eos_token + '\\n' }}
{%- endif %}
{% endfor %}
{% if add_generation_prompt %}{{ 'Answer:' }}{% endif %}"""
# As Tulu 3 (Lambert et al. 2024) has it: for base models, which bring no template.
_TULU = """{{ bos_token or '' }}{% for message in messages %}
{% if message['role'] == 'assistant' %}{{ '<|assistant|>\\n' + message['content'] + eos_token + '\\n' }}
{%- else %}{{ '<|' + message['role'] + '|>\\n' + message['content'] + '\\n' }}
{%- endif %}
{% endfor %}
{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"""
# Some templates tell the model the date: each day would give other tokens. This is Llama 3's day for want of a clock.
_DAY = {"%d": "26", "%b": "Jul", "%B": "July", "%m": "07", "%Y": "2024", "%y": "24", "%A": "Friday", "%a": "Fri"}
_CLOCK = "strftime_now"
_TEMPLATES = {"plain": _PLAIN, "tulu": _TULU}


def chat_template(name: Template, own: str | dict[str, str] | None) -> str:
    """Return the template called `name`; `own` is that of the tokenizer, if it has one, or several by name.

    Of several the one called "default" is meant, as in transformers. One that asks for the date gets a fixed one.

    Raises:
        CoolbitsError: if the tokenizer's is asked for and it has none.
    """
    if name != "tokenizer":
        return _TEMPLATES[name]
    if own is None:
        raise CoolbitsError(
            f"template: the tokenizer brings no chat template of its own; choose one of {', '.join(_TEMPLATES)}"
        )
    if isinstance(own, str):
        return _with_fixed_date(own)
    if "default" not in own:
        raise CoolbitsError(
            f"template: the tokenizer brings {', '.join(sorted(own))} and none called default; choose one of "
            f"{', '.join(_TEMPLATES)}"
        )
    return _with_fixed_date(own["default"])


def _with_fixed_date(template: str) -> str:
    if _CLOCK not in template:
        return template
    filters = "".join(f" | replace('{field}', '{value}')" for field, value in _DAY.items())
    return f"{{% macro {_CLOCK}(format) %}}{{{{ format{filters} }}}}{{% endmacro +%}}{template}"
