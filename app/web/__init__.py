"""The live page: what the camera shows and what it costs, in a browser (`classify.py --web`).

    output = WebOutput("127.0.0.1", 8080, None, facts, gauges, length)
    for result in pipeline: output.add(result)
    output.close()

Starlette and uvicorn are imported when a WebOutput is made: the rest of the application needs
neither.
"""

from tutelage.app.web.address import needs_token, parse_address
from tutelage.app.web.output import WebOutput
from tutelage.app.web.token import find_token

__all__ = ["WebOutput", "find_token", "needs_token", "parse_address"]
