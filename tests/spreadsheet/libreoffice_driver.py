"""Drives a headless LibreOffice: runs in the Python that knows ``uno``, not in ours.

    python3 libreoffice_driver.py FOLDER PIPE

Connects to an office that listens on the pipe, makes a sheet with data and formulas,
and prints what the cells show as JSON. Saves book.ods and book.xlsx in FOLDER.
"""

import contextlib
import json
import sys
import time

import uno
from com.sun.star.beans import PropertyValue

Y = (2, 3, 5, 1, 2, 4)
X = (1, 2, 3, 1, 2, 3)
GROUPS = ("a", "a", "a", "b", "b", "b")
FORMULAS = {
    "E1:M8": '=GLMM_POISSON(A1:A6;B1:B6;C1:C6;;TRUE();0.1;"laplace")',
    "E20:M28": '=GLMM_POISSON(A1:A6;B1:B6;C1:C6;B1:B6;;;"laplace")',
    "E40:M40": "=GLMM_POISSON(A1:A6;B1:B6;C1:C3)",
    "E50:M58": "=LMM(A1:A6;B1:B6;C1:C6)",
    "E60:M67": '=GLMM_POISSON({2;3;5;1;2;4};B1:B6;C1:C6;;;;"laplace")',
    "E70:M80": '=GLMM_POISSON(A1:A6;B1:B6;C1:C6;;;0.1;"laplace")',
}


def connect(pipe):
    local = uno.getComponentContext()
    resolver = local.ServiceManager.createInstanceWithContext(
        "com.sun.star.bridge.UnoUrlResolver", local
    )
    for _ in range(300):
        try:
            return resolver.resolve(
                f"uno:pipe,name={pipe};urp;StarOffice.ComponentContext"
            )
        except Exception:  # not there yet
            time.sleep(0.2)
    raise SystemExit("no office on the pipe")


def option(name, value):
    out = PropertyValue()
    out.Name, out.Value = name, value
    return out


def main(folder, pipe):
    context = connect(pipe)
    desktop = context.ServiceManager.createInstanceWithContext(
        "com.sun.star.frame.Desktop", context
    )
    book = desktop.loadComponentFromURL(
        "private:factory/scalc", "_blank", 0, (option("Hidden", True),)
    )
    sheet = book.Sheets.getByIndex(0)
    for i, (y, x, g) in enumerate(zip(Y, X, GROUPS, strict=True)):
        sheet.getCellByPosition(0, i).Value = y
        sheet.getCellByPosition(1, i).Value = x
        sheet.getCellByPosition(2, i).String = g
    shown = {}
    seconds = {}
    for area, formula in FORMULAS.items():
        block = sheet.getCellRangeByName(area)
        start = time.time()
        block.setArrayFormula(formula)
        shown[area] = block.getDataArray()
        seconds[area] = time.time() - start
    start = time.time()
    sheet.getCellByPosition(0, 0).Value = 3  # everything is calculated again
    again = sheet.getCellRangeByName("E1:M8").getDataArray()
    seconds["again"] = time.time() - start
    base = "file://" + folder + "/book"
    book.storeToURL(base + ".ods", (option("FilterName", "calc8"),))
    book.storeToURL(base + ".xlsx", (option("FilterName", "Calc MS Excel 2007 XML"),))
    print(
        json.dumps(
            {
                "shown": shown,
                "again": again,
                "seconds": seconds,
                "formula": sheet.getCellRangeByName("E1").ArrayFormula,
            }
        )
    )
    book.close(True)
    with contextlib.suppress(Exception):  # the office is gone before it can answer
        desktop.terminate()


if __name__ == "__main__":
    main(*sys.argv[1:])
