"""What the compiled modules share: the instruction set in use, the threads, the memory of arrays and of scratch.

The algorithms take these from here by `from cnnfast._engine cimport ...`, so that all of them run on one pool of
threads and follow one choice of instruction set. What they find is declared in cnnfast/_engine.pxd.
"""

cimport cython
from cpython.buffer cimport PyBUF_STRIDED_RO, PyBUF_WRITE, PyBuffer_Release, PyObject_GetBuffer
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.string cimport memset

import numpy as np

from kernels cimport MOST_THREADS, InstructionSet, Kernels, Left, Right, Target, instruction_sets, parallel_for

cdef extern from "Python.h":
    int check_signals "PyErr_CheckSignals"()  # without Cython's handling of the exception

MOST = MOST_THREADS  # threads

cdef enum:
    TILE_K = 256  # of the product that is repeated: its tile of A and panel of B fit the first cache, or nearly

cdef const InstructionSet *instruction_set = NULL
cdef int threads = 1


# ------------------------------------------------------------------------------------ instruction sets and threads

def built_sets():
    """Names of the instruction sets that were built, fastest first, and whether they run here."""
    found = {}
    cdef int i = 0
    while instruction_sets[i] != NULL:
        found[instruction_sets[i].name.decode()] = bool(instruction_sets[i].runs_here())
        i += 1
    return found


def use_set(str name):
    """Take the kernels of this instruction set, which must run here, from now on."""
    global instruction_set
    cdef int i = 0
    while instruction_sets[i].name.decode() != name:
        i += 1
    instruction_set = instruction_sets[i]


def use_threads(int n):
    """Take up to n threads from now on."""
    global threads
    threads = n


cdef const Kernels *kernels_for(dtype) except NULL:
    """Kernels of the instruction set in use for "float32" or "float64"."""
    return instruction_set.float32 if dtype == "float32" else instruction_set.float64


cdef int thread_count() noexcept:
    """How many threads a call may use; asked once a call, whose memory is made for so many."""
    return threads


cdef int stop() noexcept nogil:
    """Look for Ctrl-C; its exception is set when this is not 0."""
    with gil:
        return check_signals()


cdef int run(Chunk chunk, void *job, Py_ssize_t count, int workers) except -1:
    """Do the chunks of a job on so many threads, those that its memory was made for."""
    cdef int stopped
    with nogil:
        stopped = parallel_for(chunk, job, count, workers, stop)
    return -1 if stopped or check_signals() else 0  # a job may be too short to have looked for Ctrl-C


# ---------------------------------------------------------------------------------------------------------- memory

@cython.freelist(8)
cdef class View:
    """The memory of an array (n, c, h, w), with steps in numbers."""

    def __cinit__(self, array):
        PyObject_GetBuffer(array, &self.buffer, PyBUF_STRIDED_RO)
        self.data = <char *>self.buffer.buf
        for i in range(self.buffer.ndim):
            self.shape[i] = self.buffer.shape[i]
            self.step[i] = self.buffer.strides[i] // self.buffer.itemsize

    def __dealloc__(self):
        PyBuffer_Release(&self.buffer)

    cdef bint is_regular(self):
        """Whether the pixels of all images follow each other with one step."""
        return (self.shape[2] == 1 or self.step[2] == self.shape[3] * self.step[3]) and (
            self.shape[0] == 1 or self.step[0] == self.shape[2] * self.shape[3] * self.step[3])


@cython.freelist(8)
cdef class Memory:
    """Scratch memory of so many bytes that begins on a cache line."""

    def __cinit__(self, Py_ssize_t size):
        self.size = size
        self.block = PyMem_RawMalloc(size + LINE)
        if self.block == NULL:
            raise MemoryError(f"no memory for {size} bytes of workspace")
        self.data = <char *>((<size_t>self.block + LINE - 1) // LINE * LINE)

    def __dealloc__(self):
        PyMem_RawFree(self.block)

    cdef object numbers(self, dtype):
        """All of it as an array, which must not outlive it."""
        return np.frombuffer(PyMemoryView_FromMemory(self.data, self.size, PyBUF_WRITE), dtype)


# ------------------------------------------------------------------------------------------------------------ peak

def repeat_tile(dtype, Py_ssize_t times):
    """Compute one tile of C again and again from the first cache; return how many flops that is.

    Nothing but the multiply-add units limits it, so benchmarks take its speed for their peak.
    """
    cdef const Kernels *kernels = kernels_for(dtype)
    cdef Py_ssize_t MR = kernels.MR, NR = kernels.NR, item = np.dtype(dtype).itemsize, i
    cdef Memory memory = Memory((TILE_K * (MR + NR) + MR * NR) * item)
    memset(memory.data, 0, memory.size)
    cdef Left a = Left(memory.data, 0, 1, MR, NULL, NULL)
    cdef Right b = Right(memory.data + TILE_K * MR * item, 0, NR, NULL, NULL)
    cdef Target c = Target(memory.data + TILE_K * (MR + NR) * item, NR, True, NULL, NULL, False, NULL, False)
    with nogil:
        for i in range(times):
            kernels.multiply(MR, NR, TILE_K, &a, &b, &c)
    return 2 * MR * NR * TILE_K * times
