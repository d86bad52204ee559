"""What many fits hand to other packages: AnnData, images of brains, ArviZ."""

from __future__ import annotations

from typing import Any

from jaxglmm.many.record import FittedModels


class ExportingMany(FittedModels):
    """Many estimated models whose results go elsewhere; see ``Fits``."""

    def annotate(self, adata: Any, prefix: str = "") -> None:
        """Write the results into the ``var`` of the AnnData that was fitted.

        Columns ``Days``, ``Days_se``, ``Days_p``, ``Days_p_adjusted`` a coefficient (as
        ``top`` has them), ``sd_...``, ``sigma`` or the dispersion, and ``status``.

        Args:
            adata: AnnData, or anything with ``var`` and ``var_names``.
            prefix: before the name of every column.

        Raises:
            DataError: its variables are not those of these fits.
        """
        from jaxglmm.postestimation.collection.tables import annotate

        annotate(self, adata, prefix)

    def to_image(
        self, like: Any, term: Any, what: str = "z", fill: float = float("nan")
    ) -> Any:
        """Maps of the results, where the responses were images.

        Args:
            like: one of the images that were fitted (or its path): its space is the
                map's. Fits find their voxels by their labels, so that parts of them
                and ``moderate()`` have maps too.
            term: a coefficient's name, or several, a volume each; for estimates a
                standard deviation's (``sd_names``), ``"sigma"``, a dispersion
                parameter's or ``"status"`` too, the codes of ``.status``.
            what: "z" (the normal deviate with the tail probability of t), "estimate",
                "se", "t", "df", "p" (of fits that converged), "p_adjusted".
            fill: what voxels have that were not fitted, or could not be.

        Returns:
            ``nibabel.Nifti1Image`` of three dimensions (four of several terms), or
            ``nibabel.Cifti2Image`` with a named map for each term; single precision.

        Raises:
            NotApplicableError: no such term; no nibabel.
            DataError: an image of another space, or fits that are of none.

        Example:
            >>> import jaxglmm as jg
            >>> fits = jg.fit_many(  # doctest: +SKIP
            ...     "bold ~ age + (1 | site)", people, responses=people["file"]
            ... )
            >>> fits.to_image(people["file"][0], "age").to_filename(  # doctest: +SKIP
            ...     "age_z.nii.gz"
            ... )
        """
        from jaxglmm.export.maps import to_image

        return to_image(self, like, term, what, fill)

    def to_arviz(self) -> Any:
        """For ArviZ: estimates with a ``model`` dimension, or draws of a bootstrap.

        Returns:
            ``arviz.InferenceData`` or ``xarray.DataTree``, see ``export.fits``.
        """
        from jaxglmm.export.fits import to_arviz

        return to_arviz(self)
