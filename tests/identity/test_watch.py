import os

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from socketwarp.errors import ConfigurationError
from socketwarp.identity.certificates import Credentials, loadCredentials
from socketwarp.identity.watch import FileWatch
from tests.certs import Authority, keyPem, newKey, writeFile
from tests.identity.test_chains import capturedLog


class Watching(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = self.mktemp()
        os.mkdir(self.directory)
        self.authority = Authority("Root")
        self.paths = self.authority.server().write(self.directory)
        self.clock = Clock()
        self.seen: list[Credentials] = []
        self.loads = 0
        self.watch = FileWatch(
            self.clock, [self.paths.cert, self.paths.key, self.paths.ca], self.load, self.seen.append, 5.0
        )
        self.watch.start()
        self.addCleanup(self.watch.stop)

    def load(self) -> Credentials:
        self.loads += 1
        return loadCredentials(self.paths.cert, self.paths.key, self.paths.ca)

    def test_the_first_load_is_current(self) -> None:
        self.assertEqual(self.watch.current.rootCertificates, (self.authority.cert,))
        self.assertEqual(self.seen, [])

    def test_unchanged_files_are_not_read_again(self) -> None:
        self.clock.pump([5.0] * 10)
        self.assertEqual((self.loads, self.watch.check()), (1, False))

    def test_a_new_pair_is_used_at_the_next_look(self) -> None:
        renewed = self.authority.server()
        renewed.write(self.directory)
        self.clock.advance(4.9)
        self.assertEqual(self.seen, [])
        self.clock.advance(0.2)
        self.assertEqual([each.chain for each in self.seen], [(renewed.cert,)])
        self.assertIs(self.watch.current, self.seen[0])

    def test_a_signal_looks_at_once(self) -> None:
        self.authority.server().write(self.directory)
        self.assertTrue(self.watch.check())
        self.assertEqual(len(self.seen), 1)

    def test_a_broken_file_changes_nothing_and_is_reported_once(self) -> None:
        before, events = self.watch.current, capturedLog(self)
        writeFile(self.directory, "end.key", keyPem(newKey()))
        self.clock.pump([5.0] * 5)
        self.assertIs(self.watch.current, before)
        self.assertEqual((self.seen, self.loads), ([], 2))
        (event,) = events
        self.assertIn("SWL_KEY_PATH", event["error"])

    def test_a_signal_has_broken_files_reported_again(self) -> None:
        before, events = self.watch.current, capturedLog(self)
        writeFile(self.directory, "end.key", keyPem(newKey()))
        self.assertEqual([self.watch.check(), self.watch.check(insist=True)], [False, False])
        self.assertEqual((len(events), self.watch.current), (2, before))

    def test_a_signal_doesnt_load_good_files_again(self) -> None:
        self.assertFalse(self.watch.check(insist=True))
        self.assertEqual((self.loads, self.seen), (1, []))

    def test_who_is_told_may_change(self) -> None:
        others: list[Credentials] = []
        self.watch.changed = others.append
        self.authority.server().write(self.directory)
        self.watch.check()
        self.assertEqual((self.seen, others), ([], [self.watch.current]))

    def test_a_pair_written_one_after_the_other_is_used_when_it_is_whole(self) -> None:
        renewed = self.authority.server()
        writeFile(self.directory, "end.key", keyPem(renewed.key))
        self.clock.advance(5.0)
        renewed.write(self.directory)
        self.clock.advance(5.0)
        self.assertEqual(self.watch.current.chain, (renewed.cert,))

    def test_a_removed_file_is_a_broken_one_until_it_is_back(self) -> None:
        os.unlink(self.paths.ca)
        self.assertFalse(self.watch.check())
        writeFile(self.directory, "ca.crt", self.watch.current.roots)
        self.assertTrue(self.watch.check())

    def test_a_mended_mode_is_a_change(self) -> None:
        os.utime(self.paths.key, ns=(1, os.stat(self.paths.key).st_mtime_ns))
        os.chmod(self.paths.key, 0o600)
        self.assertTrue(self.watch.check())

    def test_a_listener_that_fails_doesnt_stop_the_watch(self) -> None:
        def fail(new: Credentials) -> None:
            raise RuntimeError("no")

        watch = FileWatch(self.clock, [self.paths.ca], self.load, fail, 5.0)
        watch.start()
        self.addCleanup(watch.stop)
        writeFile(self.directory, "ca.crt", self.watch.current.roots)
        self.clock.advance(5.0)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertFalse(watch.check())

    def test_a_loader_that_fails_otherwise_doesnt_stop_the_watch_either(self) -> None:
        good = self.load

        def fail() -> Credentials:
            raise ValueError("no")

        self.watch._load = fail
        writeFile(self.directory, "ca.crt", self.watch.current.roots)
        self.clock.advance(5.0)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.watch._load = good
        writeFile(self.directory, "ca.crt", self.watch.current.roots + b"\n")
        self.clock.advance(5.0)
        self.assertEqual(len(self.seen), 1)

    def test_nothing_is_left_after_stopping(self) -> None:
        self.watch.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_first_load_that_fails_is_the_callers_to_report(self) -> None:
        os.unlink(self.paths.key)
        self.assertRaises(ConfigurationError, FileWatch, self.clock, [self.paths.key], self.load)
