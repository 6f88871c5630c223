"""The former path of `morphogen.keyword.file`."""

from morphogen.keyword.file import (
    TableHeader as TableHeader,
    is_table as is_table,
    open_table as open_table,
    read_header as read_header,
    write_table as write_table,
)
