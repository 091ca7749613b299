"""A page to search with: `python -m imagenet_jax.serve INDEX`."""

from imagenet_jax import cli, embed, embedder, runtime
from imagenet_jax.errors import UserError
from imagenet_jax.retrieval.store import Index
from imagenet_jax.serve import server
from imagenet_jax.serve.site import Site

DESCRIPTION = """Serve a page, on this machine alone, to search what `embed` wrote: drop or paste a picture, or type a word. It
shows what the model sees in a picture, and where. The pictures themselves must still be where they were embedded from."""


def main(argv: list[str]) -> int:
    """Open everything, then serve."""
    parser = cli.parser("serve", DESCRIPTION)
    parser.add_argument("index", type=cli.path, metavar="INDEX", help="of `embed`")
    parser.add_argument("--weights", type=cli.path, metavar="DIR|RUN", help="where the index's weights are now, if moved")
    parser.add_argument("--port", type=int, default=8090, help="default 8090; 0: any that is free")
    flags = parser.parse_args(argv)
    if not 0 <= flags.port < 1 << 16:
        raise UserError(f"--port={flags.port} is not in 0 .. 65535.")
    index = Index(flags.index)
    source = embed.open_data(index.manifest["data"])
    runtime.setup()
    site = Site(index, source, embedder.for_queries(index, flags.weights))
    return server.run(server.make_server(site, flags.port), f"{len(index):,} pictures of {flags.index}")


if __name__ == "__main__":
    cli.run(main)
