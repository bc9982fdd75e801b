"""A GPU as a device, and what a lender has to know of one.

    text ─ strict (what may be compiled) ─ compiling ─► another process ─ nvrtc ─► PTX, CUBIN ─ ptx (what may run)
    program ─ cuda ─► budget (does it fit?), pacing (ranges of blocks), comparing (what it does not own) ─► driver

``driver`` is the door to the hardware: ``cupy`` in earnest, an interpreter of PTX in the tests. ``answering`` runs the
``known_answers``, which alone make a GPU ``strict-1``; ``faults`` says what an error of the driver is; ``nvidia`` reads
NVML; ``cuda_access`` lists the files that a confined worker needs.
"""
