"""The report: reads the files of one or more runs, writes one page with its pictures. Never imports jax."""

from imagenet_jax.report.render import write_report

__all__ = ["write_report"]
