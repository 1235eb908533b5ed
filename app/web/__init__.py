"""The live page: the run's pictures, labels and figures in a browser (`classify.py --web`).

    output = WebOutput("127.0.0.1", 8080, None, facts, gauges, length)
    for result in pipeline: output.add(result)
    output.close()

Starlette and uvicorn are imported only when a WebOutput is created; the rest of the application
does not need them.
"""

from tutelage.app.web.address import needs_token, parse_address
from tutelage.app.web.output import WebOutput
from tutelage.app.web.token import find_token

__all__ = ["WebOutput", "find_token", "needs_token", "parse_address"]
