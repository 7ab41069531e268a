"""The hand-over at a restart: the clients' connections, recordings and jobs of one front go on in
the next one, and the clients notice a pause.

    the front that ends (giving.py)                          the next one (taking.py)
    1. stores one end of a pair of sockets
       with the service manager
    2. sends all descriptors into the other end,
       and last the state that names them (state.py)  ───▶   3. reads them, and goes on

Without a service manager that keeps descriptors, a restart is a drain.
"""
