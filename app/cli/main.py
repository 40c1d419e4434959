"""Define the `graft` command and its top-level commands; the others are in `app.cli.commands`."""

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
from app.cli.commands.operations import backup, check, restore
from app.cli.commands.predict import predict
from app.cli.commands.workers import workers
from app.cli.errors import CommandError
from app.cli.options import settings
from app.core.errors import GraftError

Home = Annotated[Path | None, typer.Option(help="Folder for all data; GRAFT_HOME or ~/.graftwork if left out.")]
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
    """Run the console script and exit. A failure is one line on stderr that says what to do, and an exit code.

    The codes are 1 refused or failed, 2 wrong usage, 3 no service, 4 no valid key, 130 interrupted.
    """
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
    """Start the service and a worker on this machine, with SQLite and local files. Ctrl-C stops them."""
    configured = settings(home=home, host=host, port=port)
    from app.cli.up import up

    up(configured)


@app.command()
def demo(
    data: Annotated[
        Path | None, typer.Option(help="A folder or an archive of your own images; handwritten digits if left out.")
    ] = None,
) -> None:
    """Show everything on real images: start a service, upload, fine-tune, classify three held-out images, stop."""
    from app.cli.demo.command import demo

    demo(data)


@app.command()
def api(
    host: Host = None,
    port: Port = None,
    root_path: Annotated[
        str | None, typer.Option(help="Path below which a proxy offers the API, such as /graft.")
    ] = None,
) -> None:
    """Serve the HTTP API only; workers run as separate processes."""
    import uvicorn

    from app.api.app import create_app

    configured = settings(host=host, port=port, root_path=root_path)
    uvicorn.run(
        create_app(configured),
        host=configured.host,
        port=configured.port,
        log_config=None,
        timeout_graceful_shutdown=math.ceil(configured.stop_seconds),
    )


@app.command()
def env() -> None:
    """Print the service's address and key as shell variables. Usage: eval "$(graft env)"."""
    import shlex

    from app.cli.client import Client

    client = Client(settings=settings())
    print(f"export GRAFT_URL={shlex.quote(client.url)} GRAFT_API_KEY={shlex.quote(client.key or '')}")


@app.command()
def migrate() -> None:
    """Update the database to the newest schema."""
    from app.core.database import configured_database
    from app.core.home import make_private
    from app.core.migrations import migrate

    configured = settings()
    make_private(configured)
    database = configured_database(configured)
    migrate(database)
    database.close()


app.command()(train)
app.command()(predict)
app.command()(backbones)
app.command()(workers)
app.command()(backup)
app.command()(restore)
app.command()(check)
datasets.add_typer(images)
for name, group in (("datasets", datasets), ("jobs", jobs), ("models", models), ("keys", keys)):
    app.add_typer(group, name=name)
