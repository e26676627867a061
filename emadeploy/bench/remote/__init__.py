"""A bench on another machine: artifacts go there, `emadeploy bench` runs there, its report comes back.

`host`: the machine, reached by the system's ssh; `greeting`: what is installed there; `sending`: artifacts, by rsync;
`job`: the run there, which outlives the connection.
"""
