"""The examples for monitoring that the package ships."""

import json
import re
from typing import Any

from tests.support.paths import ROOT

EXAMPLES = ROOT / "packaging" / "monitoring"


def expressions(value: Any) -> list[str]:
    """All values of `expr` in the dashboard."""
    if isinstance(value, list):
        return [found for each in value for found in expressions(each)]
    if not isinstance(value, dict):
        return []
    own = [value["expr"]] if "expr" in value else []
    return own + expressions(list(value.values()))


PAGE = (ROOT / "docs" / "monitoring.md").read_text()
# The queries of the page and of the dashboard.
QUERIES = re.findall(r"^    ([^#\s].*)$", PAGE.split("In PromQL:")[1].split("\n#")[0], re.MULTILINE)
DASHBOARD = expressions(json.loads((EXAMPLES / "grafana-dashboard.json").read_text()))
