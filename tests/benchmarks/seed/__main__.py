"""python -m tests.benchmarks.seed SOCKET MODEL [--repaired]"""

import argparse


def main() -> None:
    # The worker imports this module again (multiprocessing's spawn): nothing heavy above.
    import uvicorn

    from tests.benchmarks.seed.app import build

    parser = argparse.ArgumentParser()
    parser.add_argument("socket")
    parser.add_argument("model")
    parser.add_argument("--repaired", action="store_true")
    arguments = parser.parse_args()
    app = build(arguments.model, arguments.repaired)
    uvicorn.run(
        app,
        uds=arguments.socket,
        log_level="error",
        access_log=False,
        # A client's turn may come once in minutes.
        timeout_keep_alive=3600,
    )


if __name__ == "__main__":
    main()
