#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""delay.py HERE THERE MS: a TUN device whose other end is THERE, an address that this script makes
up: whoever connects to THERE:port reaches HERE:port of this host, each packet MS milliseconds late.
Prints "ready". For a network namespace of its own."""
import fcntl
import os
import select
import struct
import subprocess
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TUN_NO_PI = 0x1001

here, there, delay = sys.argv[1], sys.argv[2], float(sys.argv[3]) / 1000
tun = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", b"delay", IFF_TUN_NO_PI))
subprocess.check_call(["ip", "address", "add", here, "peer", there, "dev", "delay"])
subprocess.check_call(["ip", "link", "set", "delay", "up"])
print("ready", flush=True)

waiting = []
while True:
    timeout = max(0, waiting[0][0] - time.monotonic()) if waiting else None
    if select.select([tun], [], [], timeout)[0]:
        packet = os.read(tun, 65536)
        if packet[0] >> 4 == 4:
            # With both addresses exchanged all checksums stay right.
            waiting.append((time.monotonic() + delay,
                            packet[:12] + packet[16:20] + packet[12:16] + packet[20:]))
    while waiting and waiting[0][0] <= time.monotonic():
        os.write(tun, waiting.pop(0)[1])
