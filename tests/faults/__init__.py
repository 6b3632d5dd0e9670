"""The fault runs: whatever is broken around the daemon, nothing that was acknowledged is lost.

``python -m tests.faults.run --seed S --minutes M`` starts a Mosquitto, a far end, a TCP proxy on each link, publishers
and the daemon, breaks them as a seeded schedule says, heals everything, and lets the oracle judge what is left. It
shares no code with ``bridge/``.

What is proved, for each message that the broker PUBACKed to the publisher: its rows were receipted by the far end, byte
for byte as the mapping must make them, or it stands in the dead letters with the reason that it must have. Beside that:
order, duplicates (each explained or a failure), books, memory, secrets, exit codes, PUBACKs. ``oracle.py`` says each
exactly.

What is excused, and why
------------------------

Mosquitto 2.0.11 writes its state to disk on SIGUSR1 and on a clean end only (``autosave_interval 0`` here, so that no
other moment does). Killed, it forgets what it PUBACKed since: a loss, but none of the bridge's. Four faults end it:

* ``broker.restart``: SIGTERM. The broker saves. Nothing is excused.
* ``broker.kill_saved``: publishing pauses until nothing is un-PUBACKed, SIGUSR1, the file is seen to change, SIGKILL.
  Nothing is excused. What the bridge acknowledged between save and kill comes again: duplicates.
* ``broker.kill_session_lost``: publishing pauses until the bridge has PUBACKed everything on the wire, SIGKILL, the
  file is deleted, and publishing goes on only when the bridge has subscribed again. Nothing is excused.
* ``broker.kill_unannounced``: SIGUSR1 under full load, the file is seen to change, a moment later SIGKILL. Excused are
  messages that were PUBACKed to the publisher between signal and death, **and** that the bridge never PUBACKed on the
  wire (the proxy reads along), **and** that did not arrive. They are counted, and bounded by what was published in
  those moments. Whatever the bridge PUBACKed is excused from nothing.

A message that the publisher had to send twice (its connection broke before the PUBACK) may arrive twice. So may one
that the broker handed over twice, which the proxy sees. A record may reach the far end twice, over another connection
than before or after ``send-error:8``. Any other duplicate is a failure.

What can't be seen here: SIGKILL leaves the operating system's cache alive, so a missing fsync is not found by it.
``power.py`` finds it.
"""
