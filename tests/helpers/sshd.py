"""ssh servers on loopback addresses, each with its own port, key and home folder, which serve tests as remote machines."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from tests.helpers.live import BIN, free_port

SSHD = shutil.which('sshd') or shutil.which('sshd', path='/usr/sbin')


class Machine:
    """An ssh server and the processes started through it."""

    def __init__(self, address: str, folder: Path) -> None:
        folder.mkdir()
        self.home = folder / 'home'
        self.home.mkdir()
        for name in ('host', 'user'):
            subprocess.run(['ssh-keygen', '-q', '-t', 'rsa', '-m', 'PEM', '-N', '', '-f', str(folder / name)], check=True)
        (folder / 'authorized').write_text((folder / 'user.pub').read_text())
        (folder / 'authorized').chmod(0o600)
        port = free_port()
        settings = {
            'Port': port,
            'ListenAddress': address,
            'HostKey': folder / 'host',
            'AuthorizedKeysFile': folder / 'authorized',
            'PidFile': folder / 'pid',
            'StrictModes': 'no',
            'UsePAM': 'no',
            'PasswordAuthentication': 'no',
            'PermitRootLogin': 'yes',
            'SetEnv': f'HOME={self.home}',
            'Subsystem': 'sftp internal-sftp',
        }
        (folder / 'config').write_text(''.join(f'{key} {value}\n' for key, value in settings.items()))
        Path('/run/sshd').mkdir(exist_ok=True)
        self.server = subprocess.Popen([str(SSHD), '-D', '-f', str(folder / 'config')], stderr=subprocess.DEVNULL)
        time.sleep(1)
        assert self.server.poll() is None
        self.entry = {
            'host': address,
            'port': port,
            'user': getpass.getuser(),
            'sshKeyFile': str(folder / 'user'),
            'pythonPath': str(BIN),
        }
        """Returns its entry in NNI's machineList."""

    def processes(self) -> list[int]:
        """Returns the server, its connections, and all processes started through them."""
        found = [self.server.pid] if self.server.poll() is None else []
        mark = f'HOME={self.home}'.encode()
        for process in Path('/proc').iterdir():
            if process.name.isdigit():
                try:
                    ours = mark in (process / 'environ').read_bytes().split(b'\0')
                    parent = int((process / 'stat').read_text().rpartition(')')[2].split()[1])
                except OSError:
                    continue
                if ours or parent == self.server.pid:
                    found.append(int(process.name))
        return found

    def die(self) -> None:
        """Kills everything, as a power failure would."""
        for _ in range(3):
            for process in self.processes():
                try:
                    os.kill(process, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        self.server.wait(20)
