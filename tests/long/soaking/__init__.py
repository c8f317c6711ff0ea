"""The parts of the soak; `tests/long/soak` puts them together.

- server: `recount-local serve` as a process: started, killed, and looked at through /proc
- load:   writers, and the ledger of what was acknowledged: the oracle
- disk:   bytes by part of the data directory, and what each part is
- trend:  whether a figure grows: lines through samples
- tell:   the report, for people and for programs
"""
