"""Validates a crate without a network; run by the Python of envs/crate-validator.txt: validate_crate.py CRATE [LEVEL].

The validator fetches the JSON-LD context of RO-Crate 1.1 even if its cache is all it may use. So the cache is filled
first, with the context that rocrate 0.14 has in its package. Prints what is not as it must be, a line each.
"""

import sys
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from requests import PreparedRequest
from requests.adapters import HTTPAdapter
from rocrate_validator.models import ValidationSettings
from rocrate_validator.services import validate
from rocrate_validator.utils.http import HttpRequester
from urllib3 import HTTPResponse

CONTEXT = "https://w3id.org/ro/crate/1.1/context"
PROFILE = "provenance-run-crate-0.5"


class Packaged(HTTPAdapter):
    """Answers requests with the context from the package."""

    def send(self, request: PreparedRequest, **_options):
        body = files("rocrate").joinpath("data", "ro-crate.jsonld").read_bytes()
        headers = {"Content-Type": "application/ld+json"}
        return self.build_response(request, HTTPResponse(BytesIO(body), headers, 200, preload_content=False))


def main(crate: Path, level: str = "REQUIRED") -> int:
    """Validate the crate at `level`; return 1 if there are issues."""
    with TemporaryDirectory() as folder:
        cache = Path(folder) / "http"
        requester = HttpRequester.initialize_cache(cache_path=str(cache))
        requester.session.mount(CONTEXT, Packaged())
        requester.get(CONTEXT, headers={"Accept": "application/ld+json, application/json"})
        settings = ValidationSettings(
            rocrate_uri=str(crate),
            profile_identifier=PROFILE,
            requirement_severity=level,
            cache_path=cache,
            offline=True,
        )
        result = validate(settings)
        issues = result.get_issues()
        for issue in issues:
            print(f"{issue.severity.name} {issue.check.identifier} {issue.violatingEntity or ''}: {issue.message}")
        print(f"{len(result.executed_checks)} checks, {len(issues)} issues")
    return 1 if issues else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
