"""Wishes on the disk."""

import sqlite3
import subprocess
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred, execute
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from socketwarp.errors import ConfigurationError, StoreUnavailable
from socketwarp.listener import store
from socketwarp.listener.store import MIGRATIONS, IPortStore, Kept, SqlitePortStore
from socketwarp.listener.wishes import PortLimits, PortOptions, PortSpec
from tests.listener.rig import MemoryStore, failureOf
from tests.manual import DOCS

SPEC = PortSpec(18080, "uid-1", "10.0.0.5", 80)
OTHER = PortSpec(443, "uid-2", "::1", 8443, "127.0.0.1")


class StoreTests(SynchronousTestCase):
    """A database in a directory of its own."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()) / "made" / "for us"
        self.store = self.makeStore()

    def makeStore(self) -> SqlitePortStore:
        return SqlitePortStore(self.directory, execute)

    def done(self, change: Deferred[None]) -> None:
        self.successResultOf(change)

    def again(self) -> list[Kept]:
        """What the next process finds; this one is killed, not closed."""
        self.kill()
        store = self.makeStore()
        found = store.load()
        self.done(store.close())
        return found

    def kill(self) -> None:
        """The system lets go of what a process held."""
        self.store._letGo()

    def refusal(self) -> str:
        self.kill()
        error = self.assertRaises(ConfigurationError, self.makeStore().load)
        self.assertIn(str(self.store.path), str(error))
        return str(error)

    def test_twoDoNotShareADirectory(self) -> None:
        self.store.load()
        other = self.makeStore()
        error = self.assertRaises(ConfigurationError, other.load)
        self.assertIn(f"another listener uses {self.directory}", str(error))
        self.assertRaises(ConfigurationError, other.load)
        self.done(self.store.put(SPEC))
        self.done(self.store.close())
        self.assertEqual([Kept(SPEC)], other.load())

    def test_itIsAStore(self) -> None:
        self.assertTrue(verifyObject(IPortStore, self.store))
        self.assertTrue(verifyObject(IPortStore, MemoryStore()))

    def test_aNewOneIsEmptyAndItsDirectoryOurs(self) -> None:
        self.assertEqual([], self.store.load())
        self.assertEqual(0o700, self.directory.stat().st_mode & 0o777)

    def test_onlyWeReadIt(self) -> None:
        self.store.load()
        self.done(self.store.put(SPEC))
        modes = {path.name: path.stat().st_mode & 0o777 for path in self.directory.iterdir()}
        self.assertEqual({f"listener.sqlite3{end}": 0o600 for end in ("", "-wal", "-shm")}, modes)

    def test_whatWasPutIsThereAfterAKill(self) -> None:
        self.store.load()
        self.done(self.store.put(SPEC))
        self.done(self.store.put(OTHER))
        self.assertEqual([Kept(OTHER), Kept(SPEC)], self.again())

    def test_whatWasRemovedIsNot(self) -> None:
        self.store.load()
        self.done(self.store.put(SPEC))
        self.done(self.store.remove(18080))
        self.done(self.store.remove(18080))
        self.assertEqual([], self.again())

    def test_aPortHasOneWish(self) -> None:
        self.store.load()
        self.done(self.store.put(SPEC))
        self.done(self.store.put(PortSpec(18080, "uid-2", "x", 1)))
        self.assertEqual(["uid-2"], [kept.spec.uid for kept in self.again()])

    def test_limitsAndOptionsAreKept(self) -> None:
        limits = PortLimits(
            expires=2e9, total=7, atOnce=3, idleSeconds=1.5, sources=(IPv4Network("10.0.0.0/8"), IPv6Network("::1/128"))
        )
        spec = attrs.evolve(SPEC, limits=limits, options=PortOptions(proxyProtocol=2))
        self.store.load()
        self.done(self.store.put(spec))
        self.assertEqual([Kept(spec)], self.again())

    def test_visitorsAreCountedAsLongAsThereIsTheWish(self) -> None:
        self.store.load()
        self.done(self.store.put(SPEC))
        self.done(self.store.count(18080, 5))
        self.done(self.store.count(443, 1))
        self.assertEqual([Kept(SPEC, 5)], self.again())
        self.done(self.store.put(SPEC))
        self.assertEqual([Kept(SPEC, 0)], self.again())

    def test_whoIsDeniedIsThereAfterAKill(self) -> None:
        self.store.load()
        self.done(self.store.deny("uid-1", 200.5, 100.0))
        self.done(self.store.deny("uid-2", 150.0, 100.0))
        self.done(self.store.deny("uid-3", 190.0, 100.0))
        self.done(self.store.deny("uid-3", 101.0, 101.0))
        self.assertEqual({}, self.store.denied())
        self.done(self.store.close())
        self.assertEqual([], self.store.load())
        self.assertEqual({"uid-1": 200.5, "uid-2": 150.0}, self.store.denied())
        self.done(self.store.deny("uid-4", 300.0, 160.0))  # and what is over is gone
        self.kill()
        self.assertEqual([], self.store.load())
        self.assertEqual({"uid-1": 200.5, "uid-4": 300.0}, self.store.denied())

    def test_aDenialThatMakesNoSenseIsRefused(self) -> None:
        self.store.load()
        assert self.store._connection is not None
        self.store._connection.execute("INSERT INTO denied VALUES ('uid-1', 'soon')")
        self.done(self.store.close())
        self.assertIn("can't be trusted", self.refusal())

    def test_commitsReachTheDiskBeforeTheyAreAnswered(self) -> None:
        self.store.load()
        connection = self.store._connection
        assert connection is not None
        self.assertEqual(("wal",), connection.execute("PRAGMA journal_mode").fetchone())
        self.assertEqual((2,), connection.execute("PRAGMA synchronous").fetchone())  # FULL

    def test_aChangeThatFailsIsSaid(self) -> None:
        self.store.load()
        self.done(self.store.close())
        self.done(self.store.close())
        error = failureOf(self.store.put(SPEC))
        self.assertIsInstance(error, StoreUnavailable)
        self.assertIn("nothing is changed", str(error))

    def test_aFullDiskIsSaid(self) -> None:
        self.store.load()
        assert self.store._connection is not None
        self.store._connection.execute("PRAGMA max_page_count = 1")
        self.assertIsInstance(failureOf(self.store.put(PortSpec(1, "u" * 100_000, "x", 1))), StoreUnavailable)

    def test_aDiskThatCanNotBeWrittenIsInTheLogOnceAndThatItCanAgain(self) -> None:
        """Who asks has it tried, though nobody changes anything."""
        self.store.load()
        self.assertIsNone(self.store.fault())
        assert self.store._connection is not None
        with capturedLogs() as lines:
            self.store._connection.execute("PRAGMA query_only = 1")
            for _ in range(2):
                self.assertIn("readonly", str(failureOf(self.store.put(SPEC))))
                self.assertIn("readonly", self.store.fault() or "")
            self.store._connection.execute("PRAGMA query_only = 0")
            inThread, waiting = self.store._inThread, list[Deferred[None]]()

            def later(*call: Any) -> Deferred[None]:  # Any: a function and its arguments
                waiting.append(Deferred())
                return waiting[-1].addCallback(lambda _: inThread(*call))

            self.store._inThread = later
            for _ in range(3):
                self.store.fault()
            self.assertEqual(1, len(waiting), "one trial at a time")
            waiting[0].callback(None)
            self.assertIsNone(self.store.fault())
        self.assertEqual([LogLevel.error, LogLevel.info], [line["log_level"] for line in lines])
        self.assertIn("readonly", formatEvent(lines[0]))
        self.assertEqual([], self.store._connection.execute("SELECT * FROM ports").fetchall())

    def damage(self, change: Any) -> None:  # Any: takes the file's bytes
        self.store.load()
        self.done(self.store.put(SPEC))
        self.done(self.store.close())
        self.store.path.write_bytes(change(self.store.path.read_bytes()))

    def test_whatIsNoDatabaseIsRefusedAndLeftAlone(self) -> None:
        self.damage(lambda data: b"garbage " * 1000)
        self.assertIn("backup", self.refusal())
        self.assertEqual(b"garbage " * 1000, self.store.path.read_bytes())

    def test_aDamagedPageIsRefused(self) -> None:
        self.damage(lambda data: data[:4096] + b"\xa5" * (len(data) - 4096))
        self.assertIn("can't be trusted", self.refusal())

    def test_aTruncatedDatabaseIsRefused(self) -> None:
        self.damage(lambda data: data[:5000])
        self.assertIn("can't be trusted", self.refusal())

    def test_aWishThatMakesNoSenseIsRefused(self) -> None:
        for column, value in (
            ("limits", "{"),
            ("limits", "[]"),
            ("limits", '{"colour": 3}'),
            ("limits", '{"sources": ["everywhere"]}'),
            ("limits", '{"expires": "soon"}'),
            ("options", '{"proxyProtocol": 3}'),
            ("bind_address", "nowhere"),
            ("target_port", 0),
            ("port", 65536),
        ):
            self.directory = Path(self.mktemp())
            self.store = self.makeStore()
            self.store.load()
            self.done(self.store.put(SPEC))
            assert self.store._connection is not None
            self.store._connection.execute(f"UPDATE ports SET {column} = ?", (value,))
            self.done(self.store.close())
            self.assertIn("can't be trusted", self.refusal())

    def test_aDatabaseWithoutTheTableIsRefused(self) -> None:
        self.store.load()
        assert self.store._connection is not None
        self.store._connection.execute("DROP TABLE ports")
        self.done(self.store.close())
        self.assertIn("can't be trusted", self.refusal())

    def test_anEmptyFileIsRefused(self) -> None:
        self.damage(lambda data: b"")
        self.assertIn("it is empty", self.refusal())

    def test_aLogWithoutItsDatabaseIsRefused(self) -> None:
        self.store.load()
        self.done(self.store.put(SPEC))  # in the log: the process is killed now
        self.store.path.unlink()
        self.assertIn("-wal", self.refusal())

    def test_whoeverWasKilledMakingADatabaseStandsInNobodysWay(self) -> None:
        self.directory.mkdir(parents=True)
        self.store.path.with_name("listener.sqlite3.new").write_bytes(b"half of it")
        self.assertEqual([], self.again())

    def test_theFirstReleasesWishesAreTakenOver(self) -> None:
        self.writeFirst('{"port":443,"uid":"uid-2","targetHost":"::1","targetPort":8443,"bindAddress":"127.0.0.1"}')
        self.assertEqual([Kept(OTHER)], self.again())
        self.assertEqual([Kept(OTHER)], self.again())

    def test_aWishOfTheFirstReleaseThatMakesNoSenseIsRefused(self) -> None:
        for wish in ("{", "[]", '{"port": 443}'):
            self.directory = Path(self.mktemp())
            self.store = self.makeStore()
            self.writeFirst(wish)
            self.assertIn("can't be trusted", self.refusal())

    def writeFirst(self, wish: str) -> None:
        """A database of the first schema, with one wish for port 443."""
        self.directory.mkdir(parents=True)
        connection = sqlite3.connect(self.store.path)
        connection.executescript(f"{MIGRATIONS[0]}; PRAGMA user_version = 1")
        connection.execute("INSERT INTO ports VALUES (443, ?)", (wish,))
        connection.commit()
        connection.close()

    def test_aNewerReleasesDatabaseIsRefused(self) -> None:
        self.store.load()
        self.done(self.store.close())
        with sqlite3.connect(self.store.path) as connection:
            connection.execute("PRAGMA user_version = 99")
        connection.close()
        self.assertIn("newer release", self.refusal())

    def test_theWayBackIsAsTheManualSays(self) -> None:
        """With its own commands: a copy, an upgrade that changes the schema, the older release again."""
        self.store.load()
        self.done(self.store.put(SPEC))
        for _ in range(2):  # there may be a copy from an earlier upgrade
            for command in ("rm -f /root/", "vacuum into"):
                self.manual(command)
        self.done(self.store.close())
        self.patch(store, "MIGRATIONS", (*MIGRATIONS, "CREATE TABLE from_the_future (a)"))
        self.assertEqual([Kept(SPEC)], self.again())
        self.patch(store, "MIGRATIONS", MIGRATIONS)
        self.assertIn("it was written by a newer release", self.refusal())
        for command in ("cat /root/ports.sqlite3", "rm -f /var/"):
            self.manual(command)
        self.assertEqual([Kept(SPEC)], self.again())

    def manual(self, words: str) -> None:
        """Run the line of docs/operations.rst that has these words, on our files."""
        (line,) = [each for each in (DOCS / "operations.rst").read_text().splitlines() if words in each]
        line = line.replace("/root/", "../")
        line = line.replace("/var/lib/socketwarp/", "./")
        subprocess.run(line.strip(), shell=True, check=True, timeout=60, cwd=self.directory)

    def test_aDirectoryThatCannotBeMadeIsRefused(self) -> None:
        self.directory.parent.parent.mkdir()
        self.directory.parent.write_text("a file")
        self.assertIn("can't be opened (Not a directory): name a directory", self.refusal())

    def test_aDatabaseThatCannotBeOpenedIsRefused(self) -> None:
        self.store.path.mkdir(parents=True)
        self.assertIn("SWL_STATE_DIR", self.refusal())
