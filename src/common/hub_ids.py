"""The ids that the hub's model cards take for a licence and for a language, and the nearest id to what people write."""

import contextlib
import difflib
import re

# https://huggingface.co/docs/hub/repositories-licenses
LICENSES = frozenset(
    """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
    afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
    cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0
    lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl
    openmdw-1.0 openmdw-1.1 openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license
    fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 grok2-community gemma unknown
    other
    """.split()
)
# What names say where ids have initials, in the order in which it is replaced.
_INITIALS = {"creative commons": "cc", "attribution": "by", "non ?commercial": "nc", "no ?derivatives": "nd"}
_INITIALS |= {"share ?alike": "sa", "general public": "gpl", "affero gpl": "agpl", "lesser gpl": "lgpl"}
_INITIALS |= {"mozilla public": "mpl"}


def check_license(text: str) -> str:
    """The text, if it is a licence's id. Raises ValueError, which names the nearest id where one is near."""
    if text in LICENSES:
        return text
    words = re.findall(r"[a-z]+\d*(?:\.\d+)*|\d+(?:\.\d+)*", text.lower())
    plain = " ".join(
        word for word in words if word not in ("the", "gnu", "license", "licence", "international", "version", "v")
    )
    for name, initials in _INITIALS.items():
        plain = re.sub(rf"\b{name}\b", initials, plain)
    plain = re.sub(r"(?<=[a-z]{2})v?(?=[1-9])", "-", plain.replace(" ", "-"))
    beginning = [known for known in LICENSES if len(plain) > 1 and known.startswith(plain)]
    nearest = sorted(beginning, key=lambda known: (-len(known), known))[-1:]  # the newest of the plainest
    raise ValueError(_unknown("licence", text, nearest or difflib.get_close_matches(plain, LICENSES, 1, 0.7)))


def check_language(text: str) -> str:
    """The text, if it is a language's code of ISO 639-1 to -3 or `multilingual`. Raises ValueError, which names the
    nearest code where one is near."""
    from iso639 import ALL_LANGUAGES, Language, LanguageNotFoundError

    if text == "multilingual":
        return text
    codes = {code for name in ALL_LANGUAGES for code in (name.part1, name.part2b, name.part2t, name.part3) if code}
    if text in codes:
        return text
    nearest = []
    for part in (text, re.split(r"[-_ ]", text)[0]):
        with contextlib.suppress(LanguageNotFoundError):
            nearest = nearest or [Language.match(part, strict_case=False)]
    if not nearest:
        names = {language.name: language for language in ALL_LANGUAGES if language.part1}
        nearest = [names[name] for name in difflib.get_close_matches(text.title(), names, 1, 0.85)]
    raise ValueError(_unknown("language", text, [language.part1 or language.part3 for language in nearest]))


def _unknown(what, text, nearest):
    hint = f"did you mean {nearest[0]}?" if nearest else _ALLOWED[what]
    return f"not an id of a {what} on the hub, got {text[:100]!r}; {hint}"


_ALLOWED = {
    "licence": "such ids are apache-2.0, mit, cc-by-4.0, and other for one that the hub does not list",
    "language": "such ids are the codes of ISO 639, as en or yue, and multilingual",
}
