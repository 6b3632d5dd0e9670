"""The fault runs: whatever fails around the daemon, no acknowledged message is lost.

``python -m tests.faults.run --seed S --minutes M`` starts a Mosquitto, a far end, a TCP proxy on each link, publishers
and the daemon, injects faults by a seeded schedule, ends all faults, and has the oracle check the result. It shares no
code with ``bridge/``.

What is proved, for each message that the broker PUBACKed to the publisher: its rows were receipted by the far end, byte
for byte as the mapping must produce them, or it is a dead letter with the expected reason. Also checked: order,
duplicates (each explained or a failure), books, memory, secrets, exit codes, PUBACKs. ``oracle.py`` defines each
exactly.

What is excused, and why
------------------------

Mosquitto 2.0.11 writes its state to disk only on SIGUSR1 and on a clean end (``autosave_interval 0`` here excludes any
other moment). Killed, it forgets what it PUBACKed since then: a loss, but not by the bridge. Four faults end it:

* ``broker.restart``: SIGTERM. The broker saves. Nothing is excused.
* ``broker.kill_saved``: publishing pauses until nothing is un-PUBACKed, SIGUSR1, the file is seen to change, SIGKILL.
  Nothing is excused. What the bridge acknowledged between save and kill is redelivered: duplicates.
* ``broker.kill_session_lost``: publishing pauses until the bridge has PUBACKed everything on the wire, SIGKILL, the
  file is deleted, and publishing continues only when the bridge has subscribed again. Nothing is excused.
* ``broker.kill_unannounced``: SIGUSR1 under full load, the file is seen to change, a moment later SIGKILL. Excused are
  messages that were PUBACKed to the publisher between signal and death, **and** that the bridge never PUBACKed on the
  wire (the proxy reads along), **and** that did not arrive. They are counted, and may be no more than were published in
  that time. No message that the bridge PUBACKed is excused.

A message that the publisher had to send twice (its connection broke before the PUBACK) may arrive twice. So may one
that the broker delivered twice, which the proxy sees. A record may reach the far end twice, over another connection
than before or after ``send-error:8``. Any other duplicate is a failure.

Not covered here: SIGKILL leaves the operating system's cache intact, so it doesn't reveal a missing fsync. ``power.py``
does.
"""
