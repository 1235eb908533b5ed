"""Profiles of boards: complete for the ZCU104, without unknown facts for the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from tutelage.core import board_profile as profiles
from tutelage.core.board_profile import (
    UnknownBoardError,
    board_names,
    describe_target,
    load_profile,
    thread_advice,
)
from tutelage.core.fingerprint import dpu_name
from tutelage.core.toml_file import TomlError


def test_the_usual_board_comes_first() -> None:
    assert board_names()[0] == "zcu104"
    assert {"zcu104", "zcu102", "kv260", "ultra96v2"} <= set(board_names())


@pytest.mark.parametrize("board", board_names())
def test_every_profile_loads(board: str) -> None:
    profile = load_profile(board)
    assert profile.name and profile.dpu_name.startswith("DPUCZDX8G_ISA1_B")
    assert all(dpu_name(number) == profile.dpu_name for number in profile.fingerprints)
    assert profile.dpu_cores >= 1
    assert profile.dpu_clock_mhz is None or profile.dpu_clock_mhz > 0
    overlay = profile.overlay
    if overlay is None:
        return  # a board with the user's own bitstream
    assert overlay.files == ("dpu.bit", "dpu.hwh", "dpu.xclbin")
    assert Path(overlay.metadata).stem == Path(overlay.bitstream).stem  # pynq's name for it
    assert (overlay.firmware, overlay.config) == ("/usr/lib/dpu.xclbin", "/etc/vart.conf")
    assert overlay.fingerprint is None or overlay.fingerprint in profile.fingerprints


def test_the_zcu104_is_complete() -> None:
    profile = load_profile("zcu104")
    assert (profile.dpu_cores, profile.dpu_clock_mhz) == (2, 300)
    assert profile.overlay is not None and profile.overlay.fingerprint == 0x101000016010407
    meanings = {rail.name: rail.meaning for rail in profile.rails}
    assert meanings["12V"] == "the whole board" and "PS" in meanings["INT"]
    assert all(rail.step_watts > 0 for rail in profile.rails)
    brown_out, busy = profile.hazards
    assert brown_out.threads == 1 and "dpu_sw_optimize.sh" in brown_out.remedy
    assert busy.where.endswith("irps5401/4-0043") and "busy" in busy.text


@pytest.mark.parametrize("board", ["zcu102", "kv260", "ultra96v2"])
def test_uncertain_facts_are_left_out(board: str) -> None:
    profile = load_profile(board)
    assert profile.dpu_clock_mhz is None
    assert (profile.rails, profile.total_rail, profile.hazards) == ((), None, ())


def test_a_shared_fingerprint_names_the_usual_board() -> None:
    assert 0x101000016010407 in load_profile("kv260").fingerprints
    assert describe_target("DPUCZDX8G_ISA1_B4096", 0x101000016010407) == "ZCU104, Vitis AI 2.x"


@pytest.mark.usefixtures("emulation")
def test_the_emulation_cannot_pace_itself_by_an_unknown_clock() -> None:
    from tutelage.board.model_parts import ModelError
    from tutelage.board.realtime import Realtime

    with pytest.raises(ModelError, match=r"lacks dpu\.clock_mhz, cpu\.cores, ") as caught:
        Realtime("ultra96v2")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["", 'name = "x"', 'name = "x"\ndpu = 3', 'name = "x"\n[dpu]\nname = "y"',
     'name = "x"\n[dpu]\nname = "y"\ncores = 1\nfingerprints = { zz = "" }',
     'name = "x"\n[dpu]\nname = "y"\ncores = 1\n[overlay]\nrelease = "z"',
     'name = "x"\n[dpu]\nname = "y"\ncores = 1\n[[hazards]]\nfoo = "z"',
     'name = "x"\n[dpu]\nname = "y"\ncores = 0', 'name = "x"\n[dpu]\nname = "y"\ncores = 1.5',
     'name = "x"\n[dpu]\nname = "y"\ncores = 1\nclock_mhz = inf',
     'name = "x"\n[dpu]\nname = "y"\ncores = 1\n[compiler]\narch = "z"'],
)  # fmt: skip
def test_a_bad_profile_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    (tmp_path / "mine.toml").write_text(text)
    monkeypatch.setattr(profiles, "PROFILES", tmp_path)
    load_profile.cache_clear()
    try:
        with pytest.raises(TomlError, match=r"mine\.toml: ") as caught:
            load_profile("mine")
    finally:
        load_profile.cache_clear()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("board", ["zcu105", "", "../profiles/zcu104"])
def test_an_unknown_board_is_answered_with_the_known_ones(board: str) -> None:
    with pytest.raises(UnknownBoardError, match=r"no board .*; choose from kv260, .*zcu104$"):
        load_profile(board)


def test_the_keys_that_the_workstation_reads() -> None:
    profile = load_profile("zcu104")
    assert profile.cpu_cores == 4 and profile.total is not None and profile.total.name == "12V"
    assert profile.image is not None and profile.image.logins[0] == "xilinx@pynq"
    assert profile.compiler is not None and profile.compiler.command[-1] == "vai_c_xir"
    assert list(profile.compiler.images.values()) == ["Vitis AI 2.5", "Vitis AI 3.0"]
    assert load_profile("ultra96v2").compiler is None and load_profile("kv260").image is None


def test_threads_that_can_brown_the_board_out_are_reported() -> None:
    profile = load_profile("zcu104")
    (line,) = thread_advice(profile, "ZynqMP ZCU104 RevC", threads=4)
    assert "dpu_sw_optimize.sh" in line and line.endswith("--threads 1")
    assert thread_advice(profile, "ZynqMP ZCU104 RevC", threads=1) == []
    assert thread_advice(profile, None, threads=4) == []  # a PC
    assert thread_advice(profile, "Avnet Ultra96-V2", threads=4) == []
