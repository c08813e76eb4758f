import json
from unittest import mock

from socketwarp.cli.watch import Follower, sentence

from .rig import CliCase

EVENT = {"time": 0.0, "event": "port.opened", "port": 18080, "uid": "uid-1", "before": None}


def frame(number: int, event: object = EVENT) -> bytes:
    return f"id: aaaaaaaa-{number}\nevent: x\ndata: {json.dumps(event)}\n\n".encode()


class Watch(CliCase):
    def planStream(self, data: bytes, error: Exception | None = None) -> None:
        self.planRaw(200, "text/event-stream", data, error or ConnectionResetError(104, "Connection reset by peer"))

    def watch(self, *arguments: str, status: int = 0) -> tuple[str, str]:
        """Watch until a person ends it, behind what is planned."""
        self.planError(KeyboardInterrupt())
        result = self.run_("watch", *arguments, status=status)
        return result.stdout, result.stderr

    def test_events_are_lines(self) -> None:
        self.planStream(b"retry: 2000\n\n" + frame(1) + b": still here\n\n" + frame(2))
        stdout, _ = self.watch()
        self.assertEqual(2, stdout.count("port.opened           port=18080 uid=uid-1\n"))

    def test_json_is_one_event_a_line(self) -> None:
        self.planStream(frame(1) + frame(2))
        stdout, _ = self.watch("--json")
        self.assertEqual([EVENT, EVENT], [json.loads(line) for line in stdout.splitlines()])

    def test_a_lost_connection_goes_on_behind_the_last_event(self) -> None:
        self.planStream(frame(1) + frame(2) + b"id: aaaaaaaa-3\ndata: {")
        self.planError(ConnectionRefusedError(111, "Connection refused"))
        self.planStream(frame(3))
        stdout, stderr = self.watch("--since", "0")
        self.assertEqual(3, stdout.count("\n"))
        self.assertIn("GET /v1/events?since=0 ", self.sent[0].decode())
        self.assertNotIn("Last-Event-ID", self.sent[0].decode())
        self.assertIn("Last-Event-ID: aaaaaaaa-2\r\n", self.sent[1].decode())
        self.assertNotIn("since", self.sent[1].decode())
        self.assertEqual([1.0, 2.0, 1.0], self.slept)
        self.assertIn("Connection reset by peer; trying again in 1 s", stderr)

    def test_an_end_without_an_error_is_a_loss_as_well(self) -> None:
        self.planRaw(200, "text/event-stream", frame(1))
        self.assertIn("the listener ended the connection; trying again", self.watch()[1])

    def test_pauses_grow_up_to_half_a_minute(self) -> None:
        self.planStream(frame(1))
        for _ in range(6):
            self.planError(TimeoutError("timed out"))
        self.watch()
        self.assertEqual([1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0], self.slept)

    def test_a_full_listener_is_asked_again(self) -> None:
        self.planStream(frame(1))
        self.planProblem(503, "limit", "64 callers follow events already")
        self.planStream(frame(2))
        self.assertEqual(2, self.watch()[0].count("\n"))

    def test_a_listener_that_was_never_there_ends_it(self) -> None:
        self.planError(ConnectionRefusedError(111, "Connection refused"))
        self.assertIn("no listener answers: Connection refused", self.watch(status=69)[1])

    def test_a_token_that_is_taken_away_ends_it(self) -> None:
        self.planStream(frame(1))
        self.planProblem(401, "unauthenticated", "the token isn't one")
        self.assertIn("(unauthenticated); give yours with --token-file", self.watch(status=77)[1])

    def test_the_listeners_own_events_are_understood(self) -> None:
        self.open()
        data = self._ask(b"GET /v1/events?since=0 HTTP/1.0\r\nHost: localhost\r\n\r\n").partition(b"\r\n\r\n")[2]
        self.planStream(data)
        self.assertIn("port=18080 uid=uid-1 target=10.0.0.5:80", self.watch()[0])


class Following(CliCase):
    def test_data_may_have_several_lines_and_an_id_none(self) -> None:
        follower = Follower()
        for line in ("id: 1", "", "data: [1,", "data:2]"):
            self.assertIsNone(follower.take(line))
        self.assertEqual([1, 2], follower.take(""))
        self.assertEqual("1", follower.last)

    def test_what_is_not_understood_is_passed_over(self) -> None:
        follower = Follower()
        for line in ("data: {", "", "nonsense", "event: x", ""):
            self.assertIsNone(follower.take(line))

    def test_a_sentence_leaves_out_what_is_left_out(self) -> None:
        event = {"event": "api.changed", "after": {"port": 1, "limits": {"total": None, "sources": []}, "used": 0}}
        self.assertTrue(sentence(event).endswith('after={"port": 1, "used": 0}'))

    def test_a_sentence_can_not_steer_a_terminal(self) -> None:
        self.assertNotIn("\x1b", sentence({"time": 0, "event": "x", "reason": "\x1b[2J\nforged"}))
        self.assertEqual(1, len(sentence({"reason": "a\nb"}).splitlines()))
        with mock.patch("time.strftime", return_value="then"):
            self.assertEqual("then x                     a=1", sentence({"time": 0, "event": "x", "a": 1, "b": None}))
