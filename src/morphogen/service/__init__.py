"""The service of one party over HTTP."""

from morphogen.service.app import (
    create_app as create_app,
    create_tables_app as create_tables_app,
)
from morphogen.service.generations import (
    Generation as Generation,
    Generations as Generations,
)
from morphogen.service.table import (
    describe_table as describe_table,
    digest_pages as digest_pages,
)
