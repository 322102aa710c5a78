# mypy: disable-error-code="no-untyped-def, call-arg"
"""A board from which threads in compiled code take pieces of work, without locks and without the interpreter.

The caller's thread posts a job of so many pieces, and it and the helpers take pieces until none is left. A
helper that comes late, or sleeps, only leaves more pieces to the others. The entry that pieces are taken from
holds the number of the job as well, and taking is one compare-and-swap: so nobody takes a piece of a job
other than the one that they looked at.

A helper serves the arrays that it was called with; `post` names them by a generation, and helpers that serve
other arrays return.
"""

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

NEXT, UNFINISHED, GENERATION, MODE, CLOSED = 0, 8, 16, 17, 18
"""Entries of a board: number of the job and next piece, pieces not finished, generation, mode, whether no
more work will come. The first two, which change often, have a cache line each."""
SIZE = 24
VALUE, GRADIENT, HELP = 0, 1, -1
"""Modes: of jobs, log-likelihoods alone or gradients too; of threads, help with the jobs of others."""
JOB = 1 << 32
IDLE_SPINS = 1 << 20
"""How often an idle helper looks at the board before it goes: a millisecond or so."""
FINISH_SPINS = 1 << 16
"""How often the poster of a job looks whether the others are done: longer than they need unless stopped."""


@intrinsic
def _read(typing_context, board, index):
    def code(context, builder, signature, args):
        return builder.load_atomic(_address(context, builder, signature, args), "acquire", 8)

    return types.int64(board, index), code


@intrinsic
def _write(typing_context, board, index, value):
    def code(context, builder, signature, args):
        builder.store_atomic(args[2], _address(context, builder, signature, args), "release", 8)
        return context.get_dummy_value()

    return types.void(board, index, types.int64), code


@intrinsic
def _decrease(typing_context, board, index):
    def code(context, builder, signature, args):
        one = ir.Constant(ir.IntType(64), 1)
        return builder.atomic_rmw("sub", _address(context, builder, signature, args), one, "acq_rel")

    return types.int64(board, index), code


@intrinsic
def _replace(typing_context, board, index, old, new):
    """Write `new` if the entry is `old`; returns whether it was."""

    def code(context, builder, signature, args):
        address = _address(context, builder, signature, args)
        return builder.extract_value(builder.cmpxchg(address, args[2], args[3], "acq_rel", "acquire"), 1)

    return types.boolean(board, index, types.int64, types.int64), code


def _address(context, builder, signature, args):
    array = context.make_array(signature.args[0])(context, builder, args[0])
    index = context.cast(builder, args[1], signature.args[1], types.intp)
    return builder.gep(array.data, [index])


@njit(nogil=True)
def post(board, pieces, generation, mode):
    """Post a job; the one before must be finished."""
    _write(board, GENERATION, generation)
    _write(board, MODE, mode)
    _write(board, UNFINISHED, pieces)
    _write(board, NEXT, (_read(board, NEXT) // JOB + 1) * JOB)


@njit(nogil=True)
def await_job(board, pieces, generation):
    """Wait until there is a piece to take; False if none came, or one of another generation."""
    for _ in range(IDLE_SPINS):
        if _read(board, GENERATION) != generation or _read(board, CLOSED) != 0:
            return False
        if _read(board, NEXT) % JOB < pieces:
            return True
    return False


@njit(nogil=True)
def next_piece(board, pieces, generation, helps):
    """A piece to work on, and the mode of its job; the piece is -1 when the thread may go.

    A helper may go if no job comes for a while, or one of another generation; the poster of a job when no
    piece is left.
    """
    while True:
        piece, mode = take(board, pieces, generation)
        if piece >= 0:
            return piece, mode
        if not helps or not await_job(board, pieces, generation):
            return piece, mode


@njit(nogil=True)
def take(board, pieces, generation):
    """A piece of the job, and the job's mode; -1 if no piece is left, or the job is of another generation."""
    while True:
        seen = _read(board, NEXT)
        piece = seen % JOB
        mode = _read(board, MODE)
        if piece >= pieces or _read(board, GENERATION) != generation:
            return -1, mode
        if _replace(board, NEXT, seen, seen + 1):
            return piece, mode


@njit(nogil=True)
def finish(board):
    """Say that a piece that was taken is done."""
    _decrease(board, UNFINISHED)


@njit(cache=True, nogil=True)
def await_finish(board):
    """Wait a little until all pieces are done; returns whether they are."""
    spins = 0
    while _read(board, UNFINISHED) > 0 and spins < FINISH_SPINS:
        spins += 1
    return spins < FINISH_SPINS


@njit(cache=True, nogil=True)
def close(board):
    """Send the helpers home."""
    _write(board, CLOSED, 1)
