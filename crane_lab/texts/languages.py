"""What a language is called in English, and which letters it is written in."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple


class Language(NamedTuple):
    """`script` is the first word of its letters' Unicode names, such as "LATIN" or "CJK"."""

    name: str
    script: str


#: code -> language. One that is not listed goes by its code, and is told by py3langid alone.
LANGUAGES: dict[str, Language] = {
    "en": Language("English", "LATIN"),
    "zh": Language("Chinese", "CJK"),
    "vi": Language("Vietnamese", "LATIN"),
}
NAMES = {code: language.name for code, language in LANGUAGES.items()}


def language_names(languages: Sequence[str]) -> dict[str, str]:
    """Code -> name of each language, in their order; a code without a name stands for itself."""
    return {x: NAMES.get(x, x) for x in languages}


_CODES = """
    af=afr_Latn am=amh_Ethi ar=arb_Arab as=asm_Beng az=azj_Latn bg=bul_Cyrl bm=bam_Latn
    bn=ben_Beng bo=bod_Tibt ca=cat_Latn ceb=ceb_Latn ckb=ckb_Arab cs=ces_Latn da=dan_Latn
    de=deu_Latn el=ell_Grek en=eng_Latn es=spa_Latn et=est_Latn eu=eus_Latn fa=pes_Arab
    ff=fuv_Latn fi=fin_Latn fr=fra_Latn gn=grn_Latn gu=guj_Gujr ha=hau_Latn he=heb_Hebr
    hi=hin_Deva hr=hrv_Latn ht=hat_Latn hu=hun_Latn hy=hye_Armn id=ind_Latn ig=ibo_Latn
    ilo=ilo_Latn is=isl_Latn it=ita_Latn ja=jpn_Jpan jv=jav_Latn ka=kat_Geor kk=kaz_Cyrl
    km=khm_Khmr kn=kan_Knda ko=kor_Hang ky=kir_Cyrl lg=lug_Latn ln=lin_Latn lo=lao_Laoo
    lt=lit_Latn lv=lvs_Latn mg=plt_Latn mi=mri_Latn mk=mkd_Cyrl ml=mal_Mlym mn=khk_Cyrl
    mr=mar_Deva ms=zsm_Latn mt=mlt_Latn my=mya_Mymr ne=npi_Deva nl=nld_Latn
    no=nob_Latn ny=nya_Latn om=gaz_Latn or=ory_Orya pa=pan_Guru pl=pol_Latn ps=pbt_Arab
    pt=por_Latn ro=ron_Latn ru=rus_Cyrl rw=kin_Latn sd=snd_Arab si=sin_Sinh sk=slk_Latn
    sl=slv_Latn sn=sna_Latn so=som_Latn sq=als_Latn sr=srp_Cyrl ss=ssw_Latn st=sot_Latn
    su=sun_Latn sv=swe_Latn sw=swh_Latn ta=tam_Taml te=tel_Telu tg=tgk_Cyrl th=tha_Thai
    ti=tir_Ethi tl=tgl_Latn tn=tsn_Latn tr=tur_Latn ts=tso_Latn uk=ukr_Cyrl ur=urd_Arab
    uz=uzn_Latn vi=vie_Latn wo=wol_Latn xh=xho_Latn yo=yor_Latn zh=zho_Hans zu=zul_Latn
"""
#: The languages of Belebele that have a code of their own, and their names there (FLORES-200).
FLORES = dict(pair.split("=") for pair in _CODES.split())
_LONG = {name.split("_")[0]: code for code, name in FLORES.items()} | {"cmn": "zh", "nob": "no"}


def known_code(code: str, known: Collection[str]) -> str | None:
    """The one of `known` codes that means the same language, or None.

    Letter case, script and region are left aside, and two letters mean what three do:
    `zh-Hant`, `zho_Hans` and `ZH` are "zh", `pt-BR` is "pt".
    """
    short = re.split("[-_]", code.casefold())[0]
    long = FLORES.get(short, "").split("_")[0]
    return next((one for one in (short, _LONG.get(short), long) if one in known), None)
