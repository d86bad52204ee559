"""What jaxglmm is measured by: problems as data, engines as small adapters.

``python -m benchmarks`` prints a table: for every problem its goal, and for every
installed engine the first call (imports excluded, compiling included), the best warm
call, its ratio to the goal, and the log-likelihood that it found, so that a fast wrong
answer shows. Every pair of problem and engine runs in a process of its own.
"""
