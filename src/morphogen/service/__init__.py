"""The service of one party over HTTP."""

from morphogen.service.app import (
    create_app as create_app,
    describe_table as describe_table,
    digest_pages as digest_pages,
)
