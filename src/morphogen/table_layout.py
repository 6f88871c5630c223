"""The former path of `morphogen.keyword.layout`."""

from morphogen.keyword.layout import TableLayout as TableLayout
