"""Addresses of devices."""

import pytest

from bitwright.hw_constraints.transport import DeviceAddress, open_transport, parse_address
from bitwright.quant.errors import InputError


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("ssh://ann@orin:2222/srv/bench", {"user": "ann", "host": "orin", "port": 2222, "folder": "/srv/bench"}),
        ("ssh://orin", {"user": "", "host": "orin", "port": None, "folder": "~/.bitwright"}),
        ("ssh://orin/~/bench", {"folder": "~/bench"}),
        ("ssh://[::1]:22/d", {"host": "[::1]", "port": 22}),
        ("ssh://orin/d?python=/opt/venv/bin/python&lock=/run/l", {"python": "/opt/venv/bin/python", "lock": "/run/l"}),
        ("adb://emulator-5554/data/local/tmp/b", {"host": "emulator-5554", "folder": "/data/local/tmp/b"}),
        ("adb://192.0.2.7:5555/d", {"host": "192.0.2.7:5555", "port": None}),
        ("local:/srv/bench", {"scheme": "local", "host": "", "folder": "/srv/bench", "python": "python3"}),
    ],
)
def test_addresses(text, fields):
    address = parse_address(text)
    assert {name: getattr(address, name) for name in fields} == fields


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("orin", r"device 'orin': expected ssh://user@host:port/folder, adb://SERIAL/folder or local:/folder"),
        ("ssh:///folder", r"device 'ssh:///folder': expected ssh://"),
        ("ssh://orin:http/d", r"port 'http'; expected a number from 1 to 65535"),
        ("ssh://orin:70000/d", r"port '70000'; expected a number from 1 to 65535"),
        ("ssh://-oProxyCommand=x/d", r"'-oProxyCommand=x' is no account at a host"),
        ("ssh://-l@orin/d", r"'-l@orin' is no account at a host"),
        ("adb://-s/d", r"'-s' is no account at a host"),
        ("ssh://orin/d?pyton=x", r"unknown setting 'pyton'; there are: config, lock, python"),
        ("ssh://orin/d?python=", r"setting 'python' is empty"),
    ],
)
def test_what_is_no_address(text, message):
    with pytest.raises(InputError, match=message):
        parse_address(text)


def test_an_unknown_transport_lists_those_there_are():
    with pytest.raises(InputError, match="unknown transport 'telnet'; there are: adb, local, ssh"):
        open_transport("telnet://host/d")


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        ("adb", r"adb: adb needs a serial \(`adb devices`\): adb://SERIAL/data/local/tmp"),
        ("ssh", "ssh needs a host: ssh://"),
    ],
)
def test_what_a_transport_needs(scheme, message):
    with pytest.raises(InputError, match=message):
        open_transport(DeviceAddress(scheme=scheme))
