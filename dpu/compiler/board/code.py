"""The instructions of a program under construction, in an order that computes correctly."""

from __future__ import annotations

from dataclasses import dataclass, field

from tutelage.dpu.compiler.board.layout import ChipMap, Ring
from tutelage.dpu.compiler.board.memory import CONSTANTS
from tutelage.dpu.compiler.board.parameters import Parameters
from tutelage.dpu.compiler.board.stages import Plan, Result, Strip
from tutelage.dpu.compiler.board.walk import Feed, Walk, first_missing
from tutelage.dpu.isa.encoding import Instruction
from tutelage.dpu.ops.limits import BANK_DEPTH
from tutelage.dpu.ops.refusal import Refusal


@dataclass
class Code:
    """The code of a plan.

    Attributes
    ----------
    parameters : constants that the code loads
    instructions : instructions so far
    nodes : for each instruction, the number of its node
    number : number of the node whose instructions are appended
    weights, depthwise, biases : allocation of the banks of constants
    """

    plan: Plan
    parameters: Parameters
    instructions: list[Instruction] = field(default_factory=list, init=False)
    nodes: list[int] = field(default_factory=list, init=False)
    number: int = field(default=0, init=False)
    weights: Ring = field(default_factory=Ring, init=False)
    depthwise: Ring = field(default_factory=Ring, init=False)
    biases: Ring = field(default_factory=Ring, init=False)

    def __post_init__(self) -> None:
        self.shape = self.plan.shape
        self.width = self.shape.width
        self._inits: dict[str, Instruction] = {}

    def add(self, name: str, **values: int) -> None:
        """Append an instruction.

        Raises
        ------
        Refusal
            A value does not fit its field.
        """
        form = self.shape.isa.by_name[name]
        for field_name, value in values.items():
            limits = form.by_name[field_name]
            if not limits.lowest <= value <= limits.highest:
                node = self.plan.network.nodes[self.number].name
                span = f"{limits.lowest} to {limits.highest}"
                raise Refusal(f"{name} has {field_name}={value}; it must be {span}", node)
        self.instructions.append(Instruction(form, **values))
        self.nodes.append(self.number)

    def set_init(self, name: str, **values: int) -> None:
        """Append an INIT if it differs from the current one."""
        init = Instruction(self.shape.isa.by_name[name], **values)
        if init != self._inits.get(name):
            self.add(name, **values)
            self._inits[name] = init

    # -- transfers ---------------------------------------------------------------------------

    def load_rows(self, feed: Feed, chip: ChipMap, walk: Walk | None, rows: range) -> None:
        """Load rows of a map, except those that no window needs."""
        view = feed.view
        start = view.store.offset + view.first
        for row in rows:
            if walk is not None and not walk.needs(row):
                continue
            at = start + (feed.row + row * feed.row_step) * view.row_stride
            at += (feed.column - feed.left) * view.pixel_stride
            self.add(
                "LOAD", bank_id=chip.bank_of(row), bank_addr=chip.address(row),
                jump_write=chip.groups, jump_read=feed.pixel_step * view.pixel_stride,
                length=feed.columns, channel=feed.channels, reg_id=view.store.register,
                ddr_addr=at, **self._overlap(feed, walk),
            )  # fmt: skip

    def _overlap(self, feed: Feed, walk: Walk | None) -> dict[str, int]:
        """Return the additional fields of an augmented layer's LOAD."""
        if feed.taps == 1 or walk is None:
            return {}
        channels, left = feed.view.channels, feed.left - feed.column
        output = walk.output[0], feed.columns
        across = Walk((1, feed.taps), (1, feed.pixel_step), (0, left), (1, 1), output)
        pixels, columns = first_missing(across, feed.view)
        end = -feed.channels % self.width + columns * channels
        start = max(0, left) * channels
        return {"pad_start": start, "pad_idx": max(1, pixels), "pad_end": end}

    def save_rows(self, result: Result, strip: Strip, rows: range) -> None:
        """Save rows of a result to all of its locations."""
        chip = result.chip
        for save in result.saves:
            view, phase = save.view, save.phase
            for row in rows:
                at = view.store.offset + view.first + save.first
                at += (phase.row + row * phase.row_step) * view.row_stride
                at += (phase.column + strip.column * phase.column_step) * view.pixel_stride
                self.add(
                    "SAVE", bank_id=chip.bank_of(row),
                    bank_addr=(chip.address(row) + result.group + save.group) % BANK_DEPTH,
                    jump_read=chip.groups, jump_write=phase.column_step * view.pixel_stride,
                    length=strip.columns, channel=save.channels, reg_id=view.store.register,
                    ddr_addr=at,
                )  # fmt: skip

    def words(
        self, bank: int, address: int, offset: int, length: int, channels: int
    ) -> dict[str, int]:
        """Return a LOAD of constants: `length` contiguous pixels of `channels` channels."""
        return {
            "bank_id": bank, "bank_addr": address % BANK_DEPTH, "jump_read": channels,
            "jump_write": -(-channels // self.width), "length": length, "channel": channels,
            "reg_id": CONSTANTS, "ddr_addr": offset,
        }  # fmt: skip
