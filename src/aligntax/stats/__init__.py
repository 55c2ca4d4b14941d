"""Pure statistics: arrays in, plain values out; numpy and scipy only.

Each public function names the source of its formula. Every random draw takes a ``numpy.random.Generator``.
"""
