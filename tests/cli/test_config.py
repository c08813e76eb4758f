import json

from .rig import CliCase


class Check(CliCase):
    def test_settings_are_printed_with_their_sources(self) -> None:
        path = self.mktemp()
        with open(path, "w") as file:
            json.dump({"api_port": 8081}, file)
        shown = self.run_("config", "check", "listener", "--config", path, SWL_PORT="443").stdout
        self.assertRegex(shown, r"SWL_PORT +443 +environment")
        self.assertRegex(shown, r"api_port +8081 +/")
        self.assertRegex(shown, r"APIS_ADDRS +127.0.0.1 +default")

    def test_json(self) -> None:
        listed = json.loads(self.run_("config", "check", "listener", "--json", SWL_PORT="443").stdout)
        (port,) = [each for each in listed if each["field"] == "port"]
        self.assertEqual({"field": "port", "name": "SWL_PORT", "value": "443", "source": "environment"}, port)

    def test_what_can_not_be_used_is_a_configuration_error(self) -> None:
        self.assertIn("SWL_PORT", self.run_("config", "check", "listener", status=78, SWL_PORT="x").stderr)
        self.assertIn("/dev/null", self.run_("config", "check", "connector", "--config", "/dev/null", status=78).stderr)

    def test_files_of_rules_are_read(self) -> None:
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("[[port]]\nuid = ['office']")
        variables = {"SWL_POLICY_PATH": path}
        result = self.run_("config", "check", "listener", "--json", status=78, **variables)
        self.assertEqual("", result.stdout)
        self.assertIn("unknown: uid", result.stderr)
        self.assertIn("SWL_POLICY_PATH", result.stderr)
