"""The worker: small services, one duty each, that together own runs and keep them going.

    producer   claims queued runs and wakes what is due        heartbeat   renews the lease
    executor   runs the code, on the loop or in threads        reaper      buries the dead, requeues their runs
    timers     short waits in memory; puts the long ones away  watcher     tells who waits for an end
    hints      says to others that there is something to do    listener    hears them say so

Each can be started, stopped (twice is fine) and ticked by hand in a test. None knows the app.
"""
