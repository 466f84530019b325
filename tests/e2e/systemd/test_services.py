"""The shipped units, started by a real systemd: sockets, credentials, notification, watchdog, confinement."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.systemd.host import BIN, ROOT, Host, path_drop_in, shipped_files

PIN = "491683027155"
URI = "pkcs11:token=openk-test?module-path=/usr/lib/softhsm/libsofthsm2.so"
SOCKET = "/run/openk/openkd.sock"
CONFIG = """\
administrators = ["root"]

[hsm.main]
sockets = ["/run/openk-hsm/main.sock"]

[backup]
folder = "/var/lib/backups/openk"
"""
SOFTHSM = "directories.tokendir = /var/lib/openk-hsm/tokens\nobjectstore.backend = file\nlog.level = ERROR\n"
# Run as openk-hsm before the first start, as docs/operations.md tells an operator to do.
INITIALISE = f"""\
set -e
export SOFTHSM2_CONF=/etc/openk/softhsm2.conf
softhsm2-util --init-token --free --label openk-test --pin {PIN} --so-pin 99887766
'{BIN}/openk-hsm' init --uri '{URI}' --pin-file /run/openk-test-pin --state /var/lib/openk-hsm
"""


def files() -> dict[str, str]:
    """The shipped units; configuration as an operator writes it; drop-ins for paths only."""
    prepared = shipped_files()
    for policy in sorted((ROOT / "policies").glob("*.cedar*")):
        prepared[f"/etc/openk/policies/{policy.name}"] = policy.read_text()
    prepared["/etc/openk/policies/20-operators.cedar"] = (ROOT / "policies" / "examples" / "operators.cedar").read_text()
    prepared |= {
        "/etc/openk/openkd.toml": CONFIG,
        "/etc/openk/softhsm2.conf": SOFTHSM,
        "/etc/openk/hsm/main.conf": f'OPENK_HSM_URI="{URI}"\nSOFTHSM2_CONF=/etc/openk/softhsm2.conf\n'
        'OPENK_HSM_OPTIONS="--slow-seconds 2 --on-tracer seal"\n',
        "/run/openk-test-pin": PIN,
        "/run/openk-test-init": INITIALISE,
        "/run/systemd/system/openkd.service.d/test.conf": path_drop_in({
            "ExecStart": f'"{BIN}/openkd" --config /etc/openk/openkd.toml',
        }),
        "/run/systemd/system/openkd.service.d/backup.conf": "[Service]\nReadWritePaths=/var/lib/backups/openk\n",
        "/run/systemd/system/openk-hsm@.service.d/test.conf": path_drop_in({
            "ExecStart": f'"{BIN}/openk-hsm" serve --uri ${{OPENK_HSM_URI}} --socket /run/openk-hsm/%i.sock --pin-credential pin $OPENK_HSM_OPTIONS',
        }),
        "/run/systemd/system/openk-alerts.service.d/test.conf": path_drop_in({
            "ExecStart": f'"{BIN}/openk" --socket {SOCKET} alerts --follow --hook /usr/bin/cat',
        }),
        "/run/systemd/system/shop.service": (
            "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nStandardOutput=file:/run/shop.out\n"
            f'ExecStart="{BIN}/openk" --socket {SOCKET} --json policy explain key.sign shop/card\n'
        ),
        "/run/systemd/system/openkd.socket.d/test.conf": "[Unit]\nDefaultDependencies=no\n",
    }  # fmt: skip
    return prepared


COMMANDS = (
    ("systemd-sysusers",),
    ("groupadd", "--system", "operators"),
    ("usermod", "--append", "--groups", "operators", "openk-alerts"),
    ("systemd-tmpfiles", "--create", "/run/tmpfiles.d/openk.conf"),
    ("chgrp", "-R", "openkd", "/etc/openk/policies"),
    ("install", "-d", "-o", "openk-hsm", "-g", "openk-hsm", "-m", "700", "/var/lib/openk-hsm", "/var/lib/openk-hsm/tokens"),
    ("install", "-d", "-m", "755", "/var/lib/backups"),
    ("install", "-d", "-o", "openkd", "-g", "openkd", "-m", "700", "/var/lib/backups/openk"),
    ("chown", "openk-hsm", "/run/openk-test-pin"),
    ("chmod", "400", "/run/openk-test-pin"),
    ("mkdir", "-p", "/var/lib/systemd"),
    ("systemd-creds", "setup"),
    ("systemd-creds", "encrypt", "--with-key=host", "--name=pin", "/run/openk-test-pin", "/etc/openk/hsm/main.pin"),
    ("setpriv", "--reuid=openk-hsm", "--regid=openk-hsm", "--init-groups", "--", "sh", "/run/openk-test-init"),
)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with Host(tmp_path_factory.mktemp("host"), files(), COMMANDS) as booted:
        booted.start("openk-hsm@main.service")
        booted.start("openkd.service")
        yield booted


def openk(host: Host, *words: str, check: bool = True) -> str:
    return host.run("openk", "--socket", SOCKET, *words, check=check)


def test_both_are_up_and_have_said_so(host: Host) -> None:
    for unit in ("openk-hsm@main.service", "openkd.service"):
        assert host.show(unit, "ActiveState") == "active"
        assert host.show(unit, "NRestarts") == "0"
    assert host.show("openkd.service", "StatusText") != ""
    assert host.run("stat", "-c", "%U %G %a", SOCKET).split() == ["openkd", "openk", "660"]
    assert host.run("stat", "-c", "%U %G %a", "/var/lib/openk").split() == ["openkd", "openkd", "700"]


def test_the_units_grant_all_that_is_wanted(host: Host) -> None:
    """No measure of daemon or worker is missing under them, the kind of memory and the worker's allocator included, but
    what they take away on purpose: the kernel's word of a tracer (docs/threat-model.md, N1)."""
    said = host.run("journalctl", "--output=cat", "--unit=openkd.service", "--unit=openk-hsm@main.service")
    assert "openkd ready" in said
    missing = [line for line in said.splitlines() if "hardening.missing" in line]
    assert ["tracer-events" in line and '"level": "info"' in line for line in missing] == [True, True]
    for event in ("memory.kind", "memory.limit", "user.root"):
        assert event not in said


def test_options_of_a_worker_come_from_its_file(host: Host) -> None:
    worker = host.show("openk-hsm@main.service", "MainPID")
    words = host.run("cat", f"/proc/{worker}/cmdline").split("\0")
    assert words[words.index("--pin-credential") + 2 :] == ["--slow-seconds", "2", "--on-tracer", "seal", ""]
    said = host.run("journalctl", "--output=cat", "--boot")
    assert "OPENK_HSM_OPTIONS" not in said


def test_a_client_works_with_a_key(host: Host) -> None:
    openk(host, "system", "ping")
    openk(host, "vault", "create", "shop")
    openk(host, "key", "create", "shop/card", "--algorithm", "aes-256-gcm")
    host.run("sh", "-c", "printf 4111 > /run/card")
    openk(host, "key", "encrypt", "shop/card", "--in", "/run/card", "--out", "/run/card.sealed")
    openk(host, "key", "decrypt", "shop/card", "--in", "/run/card.sealed", "--out", "/run/card.opened")
    assert host.run("cat", "/run/card.opened") == "4111"


def test_a_backup_is_made_where_the_drop_in_says_and_verified_by_root(host: Host) -> None:
    name = json.loads(openk(host, "backup", "create", "--json"))["backup"]
    assert host.run("stat", "-c", "%U %G %a", f"/var/lib/backups/openk/{name}/store.db").split() == ["openkd", "openkd", "600"]
    assert "verified" in host.run("openkd", "--verify-backup", f"/var/lib/backups/openk/{name}")
    refused = host.run(
        "openkd", "--config", "/etc/openk/openkd.toml", "--restore", f"/var/lib/backups/openk/{name}", "--replace", check=False
    )
    assert "another openkd" in refused


def test_only_members_of_the_group_may_connect(host: Host) -> None:
    as_somebody = ("setpriv", "--reuid=4242", "--clear-groups")
    ping = ("--", "openk", "--socket", SOCKET, "system", "ping")
    refused = host.run(*as_somebody, "--regid=4242", *ping, check=False)
    assert "not readable" in refused or "daemon.unreachable" in refused
    host.run(*as_somebody, "--regid=openk", *ping)


def test_the_pin_is_the_workers_alone(host: Host) -> None:
    worker, daemon = host.show("openk-hsm@main.service", "MainPID"), host.show("openkd.service", "MainPID")
    assert host.run("nsenter", "--target", worker, "--mount", "cat", "/run/credentials/openk-hsm@main.service/pin") == PIN
    mine = host.run("sh", "-c", f"tr '\\0' '\\n' < /proc/{daemon}/environ")
    assert "CREDENTIALS_DIRECTORY" not in mine
    as_daemon = ("nsenter", "--target", daemon, "--mount", "setpriv", "--reuid=openkd", "--regid=openkd", "--init-groups", "--")
    for path in ("/var/lib/openk-hsm", "/etc/openk/hsm", "/run/credentials/openk-hsm@main.service"):
        assert "denied" in host.run(*as_daemon, "ls", path, check=False), path
    assert "Read-only" in host.run(*as_daemon, "touch", "/etc/x", check=False) + host.run(*as_daemon, "touch", "/usr/x", check=False)


def test_the_callers_unit_is_known(host: Host) -> None:
    host.start("shop.service")
    assert "shop.service" in host.run("cat", "/run/shop.out")


def test_reload_takes_new_policies_and_refuses_bad_ones(host: Host) -> None:
    forbid = 'forbid (principal, action == Action::"key.encrypt", resource);'
    denied = ("key", "encrypt", "shop/card", "--in", "/run/card", "--out", "/run/card.again")
    host.run("sh", "-c", f"echo '@id(\"test\") {forbid}' > /etc/openk/policies/50-test.cedar")
    host.run("systemctl", "reload", "openkd.service")
    host.wait(lambda: "policy.denied" in openk(host, *denied, check=False), 5, "the new policies")
    host.run("sh", "-c", "echo 'forbid (' > /etc/openk/policies/50-test.cedar")
    host.run("systemctl", "reload", "openkd.service")
    # ExecReload= only sends the signal: the unit is `reloading` until the daemon has looked at the policies.
    host.wait(lambda: "policy.kept" in host.story(), 5, "the refusal of the bad policies")
    host.wait(lambda: host.show("openkd.service", "ActiveState") == "active", 5, "the end of the reload")
    assert "policy.denied" in openk(host, *denied, check=False)
    host.run("rm", "/etc/openk/policies/50-test.cedar")
    host.run("systemctl", "reload", "openkd.service")
    host.wait(lambda: "policy.denied" not in openk(host, *denied, check=False), 5, "the old policies")


def test_the_journal_has_the_daemons_lines_with_their_fields(host: Host) -> None:
    (ready,) = host.journal("-u", "openkd.service", "OPENK_EVENT=ready")
    assert (ready["PRIORITY"], ready["OPENK_CATEGORY"], ready["OPENK_HSM"]) == ("6", "lifecycle", "openk-test")
    assert (ready["_TRANSPORT"], ready["_SYSTEMD_UNIT"]) == ("journal", "openkd.service"), "the native protocol"
    openk(host, "log", "level", "debug", "--category", "requests")
    said = openk(host, "--json", "key", "describe", "nowhere/card", check=False)
    host.wait(lambda: bool(host.journal("OPENK_VAULT=nowhere")), 5, "the line about the refused request")
    (refused,) = host.journal("OPENK_VAULT=nowhere")
    assert (refused["OPENK_EVENT"], refused["OPENK_CODE"], refused["PRIORITY"]) == ("request.refused", "vault.unknown", "7")
    assert refused["OPENK_REQUEST"] in said, "the client has the id by which the line is found"


def test_the_journal_has_the_workers_lines_by_the_clients_request(host: Host) -> None:
    openk(host, "vault", "create", "followed")
    openk(host, "key", "create", "followed/card", "--algorithm", "aes-256-gcm")
    host.run("sh", "-c", "printf 4111 > /run/followed")
    openk(host, "key", "encrypt", "followed/card", "--in", "/run/followed", "--out", "/run/followed.sealed")
    wrong = ("key", "decrypt", "followed/card", "--in", "/run/followed.sealed", "--aad", "another")
    said = openk(host, *wrong, check=False)
    request = said[said.index("request ") :].split()[1]
    host.wait(lambda: bool(host.journal(f"OPENK_REQUEST={request}", "OPENK_EVENT=operation refused")), 5, "the worker's line")
    (line,) = host.journal(f"OPENK_REQUEST={request}", "OPENK_EVENT=operation refused")
    assert (line["_TRANSPORT"], line["_SYSTEMD_UNIT"]) == ("journal", "openk-hsm@main.service"), "the native protocol"
    assert (line["OPENK_OPERATION"], line["OPENK_DEVICE"], line["PRIORITY"]) == ("decrypt", "CKR_GENERAL_ERROR", "6")


def test_a_hook_is_run_for_an_alert(host: Host) -> None:
    """The shipped unit: a user of its own, the operators' example policy, the program as its child."""
    host.start("openk-alerts.service")
    assert host.show("openk-alerts.service", "User") == "openk-alerts"
    host.run("mkdir", "-p", "/etc/openk/conf.d")
    host.run("sh", "-c", "printf '[health]\\ndisk_free_share = 1.0\\n[alerts]\\nclear_seconds = 0\\n[alerts.disk_low]\\nfor_seconds = 0\\n' > /etc/openk/conf.d/disk.toml")
    host.run("systemctl", "reload", "openkd.service")

    command = host.show("openk-alerts.service", "MainPID")

    def told(state: str) -> list[dict[str, str]]:
        """By the hook: a process of its own, whose name the journal does not know where it ended too soon."""
        entries = host.journal("-u", "openk-alerts.service")
        return [entry for entry in entries if entry["_PID"] not in ("1", command) and f'"raised": {state}' in entry["MESSAGE"]]

    host.wait(lambda: bool(told("true")), 15, "the hook to be run")
    assert json.loads(told("true")[0]["MESSAGE"])["alert"] == "disk_low"
    host.run("rm", "/etc/openk/conf.d/disk.toml")
    host.run("systemctl", "reload", "openkd.service")
    host.wait(lambda: bool(told("false")), 45, "the hook to be run for the end")
    assert host.show("openk-alerts.service", "ActiveState") == "active"
    host.run("systemctl", "stop", "openk-alerts.service")


def test_a_worker_that_is_killed_comes_back(host: Host) -> None:
    before = host.show("openk-hsm@main.service", "MainPID")
    host.run("kill", "-9", before)
    host.wait(lambda: host.show("openk-hsm@main.service", "MainPID") not in ("0", before), 10, "a new worker")
    openk(host, "key", "decrypt", "shop/card", "--in", "/run/card.sealed", "--out", "/run/card.opened")
    assert host.show("openkd.service", "NRestarts") == "0"


def test_a_daemon_that_stands_still_is_replaced(host: Host) -> None:
    """The watchdog; shortened here, or the test would take a minute."""
    host.run("sh", "-c", "printf '[Service]\\nWatchdogSec=1\\n' > /run/systemd/system/openkd.service.d/watchdog.conf")
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "restart", "openkd.service")
    before = host.show("openkd.service", "MainPID")
    host.wait(lambda: int(host.show("openkd.service", "WatchdogTimestampMonotonic")) > 0, 5, "a sign of life")
    host.run("kill", "-STOP", before)
    host.wait(lambda: host.show("openkd.service", "MainPID") not in ("0", before), 15, "a new daemon")
    host.wait(lambda: host.show("openkd.service", "ActiveState") == "active", 15, "the new daemon to be ready")
    openk(host, "key", "decrypt", "shop/card", "--in", "/run/card.sealed", "--out", "/run/card.opened")


def test_a_stop_is_clean_and_the_socket_wakes_it_again(host: Host) -> None:
    host.run("systemctl", "stop", "openkd.service")
    assert host.show("openkd.service", "Result") == "success"
    assert host.show("openkd.service", "ExecMainStatus") == "0"
    openk(host, "system", "ping")
    assert host.show("openkd.service", "ActiveState") == "active"
    host.run("systemctl", "stop", "openkd.socket", "openkd.service", "openk-hsm@main.service")
    assert host.show("openk-hsm@main.service", "Result") == "success"
    assert not Path(f"/proc/{host.show('openkd.service', 'MainPID')}/comm").exists() or host.show("openkd.service", "MainPID") == "0"
