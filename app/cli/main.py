"""The `graft` command. What its commands do stands in the modules beside this one."""

import math
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.commands.datasets import datasets
from app.cli.commands.images import images
from app.cli.commands.jobs import jobs, train
from app.cli.commands.keys import keys
from app.cli.commands.models import backbones, models
from app.cli.commands.predict import predict
from app.cli.commands.workers import workers
from app.cli.errors import CommandError
from app.cli.options import settings
from app.core.errors import GraftError

Home = Annotated[Path | None, typer.Option(help="Where data is kept; GRAFT_HOME, else ~/.graftwork.")]
Host = Annotated[str | None, typer.Option(help="Address to listen on.")]
Port = Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)]

_UsageError: Any = typer.BadParameter.__bases__[0]  # typer brings click's errors along, most without a public name

app = typer.Typer(
    name="graft",
    help="Fine-tune and serve image classifiers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def run() -> None:
    """The console script. Every failure is one line on stderr that says what to do, and an exit code:
    1 refused or failed, 2 wrong usage, 3 no service, 4 no valid key, 130 interrupted."""
    try:
        sys.exit(app(standalone_mode=False, prog_name="graft"))
    except typer.Exit as error:
        sys.exit(error.exit_code)
    except _UsageError as error:
        command = error.ctx.command_path if error.ctx else "graft"
        print(f"{command}: {error.format_message()} See '{command} --help'.", file=sys.stderr)
        sys.exit(2)
    except CommandError as error:
        print(f"graft: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except GraftError as error:
        print(f"graft: {error.detail}", file=sys.stderr)
        sys.exit(1)
    except (KeyboardInterrupt, typer.Abort):
        print("graft: interrupted.", file=sys.stderr)
        sys.exit(130)


@app.command()
def up(home: Home = None, host: Host = None, port: Port = None) -> None:
    """Start the embedded service: SQLite, local files, no broker. Ctrl-C stops it."""
    given = settings(home=home, host=host, port=port)
    from app.cli.up import up

    up(given)


@app.command()
def demo(
    data: Annotated[
        Path | None, typer.Option(help="Your own images, a folder or an archive; else handwritten digits.")
    ] = None,
) -> None:
    """The whole job on real images: start, upload, fine-tune, classify three held-out images, stop."""
    from app.cli.demo.command import demo

    demo(data)


@app.command()
def api(host: Host = None, port: Port = None) -> None:
    """Serve the HTTP API alone, beside workers of their own."""
    import uvicorn

    from app.api.app import create_app

    given = settings(host=host, port=port)
    uvicorn.run(
        create_app(given),
        host=given.host,
        port=given.port,
        log_config=None,
        timeout_graceful_shutdown=math.ceil(given.stop_seconds),
    )


@app.command()
def env() -> None:
    """Print the service's address and key for a shell: eval "$(graft env)"."""
    import shlex

    from app.cli.client import Client

    client = Client(settings=settings())
    print(f"export GRAFT_URL={shlex.quote(client.url)} GRAFT_API_KEY={shlex.quote(client.key or '')}")


@app.command()
def migrate() -> None:
    """Bring the database to the newest schema."""
    from app.core.database import configured_database
    from app.core.home import make_private
    from app.core.migrations import migrate

    given = settings()
    make_private(given)
    database = configured_database(given)
    migrate(database)
    database.close()


app.command()(train)
app.command()(predict)
app.command()(backbones)
app.command()(workers)
datasets.add_typer(images)
for name, group in (("datasets", datasets), ("jobs", jobs), ("models", models), ("keys", keys)):
    app.add_typer(group, name=name)
