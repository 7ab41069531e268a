"""asrd-http with time limits of a third of a second.

python -m tests.support.impatient [OPTION ...]
"""

import sys

from asrd.http import main, server, sse, upload

LIMIT = 0.3

if __name__ == "__main__":
    upload.PAUSE_SECONDS = server.HEAD_SECONDS = LIMIT
    sse.READ_SECONDS = LIMIT
    sys.exit(main.main())
