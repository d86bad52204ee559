"""Where each shipped file comes from: origin, licence, citation, checksum.

The files hold measurements that were published in the works cited: numbers, which are
facts. No text of any package's documentation is copied. "via" names the R package in
which the table is commonly found and whose column names and order of levels it follows
(dots in names are underscores here).
"""

from __future__ import annotations

from dataclasses import dataclass

FACTS = "published measurements: facts, free to use; please cite the source"


@dataclass(frozen=True)
class Source:
    """Origin of one data set. ``sha256`` is that of ``<name>.csv.gz``."""

    name: str
    what: str
    citation: str
    origin: str
    licence: str
    sha256: str

    def __str__(self) -> str:
        """A paragraph to print."""
        return (
            f"{self.name}: {self.what}\n  {self.citation}\n"
            f"  {self.origin}; {self.licence}\n  sha256 {self.sha256}"
        )


SOURCES = (
    Source(
        name="Arabidopsis",
        what=(
            "fruits of 625 plants: genotypes in populations in regions, two treatments"
        ),
        citation=(
            "Banta, J. A., Stevens, M. H. H. and Pigliucci, M. (2010). A "
            "comprehensive test of the 'limiting resources' framework applied to "
            "plant tolerance to apical meristem damage. Oikos 119, 359-369."
        ),
        origin="the authors' data, via lme4; obs (row number) added",
        licence=FACTS,
        sha256="9df9662aeaf9fa75b263fae20950a319d977071fa157602fe60a31ee6c208afd",
    ),
    Source(
        name="Dyestuff",
        what="yield of dyestuff, 6 batches of 5",
        citation=(
            "Davies, O. L., ed. (1957). Statistical Methods in Research and "
            "Production, 3rd edition. Oliver and Boyd, section 6.4."
        ),
        origin="a table of the book, via lme4",
        licence=FACTS,
        sha256="8153f0fd938ba1382f9041bca4e7a289c065f1623c889b22fe07d2fe76c06003",
    ),
    Source(
        name="Dyestuff2",
        what=(
            "made-up dyestuff, 6 batches of 5; the batch variance is estimated as zero"
        ),
        citation=(
            "Box, G. E. P. and Tiao, G. C. (1973). Bayesian Inference in Statistical "
            "Analysis. Addison-Wesley, section 5.1.2."
        ),
        origin="a table of the book, via lme4",
        licence=FACTS,
        sha256="f2ae0d32ae00e990083a9194c18a81ef27c602b1cb4d96a9bd239ca02eca1c8a",
    ),
    Source(
        name="Machines",
        what="productivity of 6 workers on 3 machines, 3 times each",
        citation=(
            "Milliken, G. A. and Johnson, D. E. (1992). Analysis of Messy Data, "
            "volume 1: Designed Experiments. Chapman and Hall, chapter 23."
        ),
        origin="a table of the book, via nlme",
        licence=FACTS,
        sha256="fe25b33f6d599eda3994d280ba3b7c69f1f95360b539e736c531a938661b3f94",
    ),
    Source(
        name="Orthodont",
        what="a dental distance of 27 children at ages 8, 10, 12 and 14",
        citation=(
            "Potthoff, R. F. and Roy, S. N. (1964). A generalized multivariate "
            "analysis of variance model useful especially for growth curve problems. "
            "Biometrika 51, 313-326."
        ),
        origin="a table of the paper, via nlme",
        licence=FACTS,
        sha256="e068c339909bad3fc4de22ceeddf804ce8871ad290daba85a688e2a2d6f81d01",
    ),
    Source(
        name="Owls",
        what="begging calls of barn owl chicks in 27 nests",
        citation=(
            "Roulin, A. and Bersier, L.-F. (2007). Nestling barn owls beg more "
            "intensely in the presence of their mother than in the presence of their "
            "father. Animal Behaviour 74, 1099-1106."
        ),
        origin="the authors' data, via glmmTMB (and Zuur et al., 2009)",
        licence=FACTS,
        sha256="2e32cff98cddd4aea7bebfe3fd01d6c12c0ab36dfcd85821ca1fd7d917e2595b",
    ),
    Source(
        name="Pastes",
        what="strength of a paste, 3 casks in each of 10 batches, assayed twice",
        citation=(
            "Davies, O. L. and Goldsmith, P. L., eds (1972). Statistical Methods in "
            "Research and Production, 4th edition. Oliver and Boyd, section 6.5."
        ),
        origin="a table of the book, via lme4",
        licence=FACTS,
        sha256="ae40ca42b520aacc04ceaa1c7e6c07c1df68c24ac6a513d9af19655fa821bab6",
    ),
    Source(
        name="Penicillin",
        what="zones of inhibition, 24 plates crossed with 6 samples of penicillin",
        citation=(
            "Davies, O. L. and Goldsmith, P. L., eds (1972). Statistical Methods in "
            "Research and Production, 4th edition. Oliver and Boyd, section 6.6."
        ),
        origin="a table of the book, via lme4",
        licence=FACTS,
        sha256="8c6deb80952d94710c62fb607cd45f98f4093b1df6bf1288a508eb74ffa6ad6a",
    ),
    Source(
        name="Salamanders",
        what="counts of salamanders, 23 streams, 7 species and stages, 4 visits",
        citation=(
            "Price, S. J., Muncy, B. L., Bonner, S. J., Drayer, A. N. and Barton, C. "
            "D. (2016). Effects of mountaintop removal mining and valley filling on "
            "the occupancy and abundance of stream salamanders. Journal of Applied "
            "Ecology 53, 459-468. Data: Dryad, doi:10.5061/dryad.5m8f6."
        ),
        origin="the authors' Dryad package, via glmmTMB",
        licence="CC0 (Dryad's terms); please cite paper and data",
        sha256="07219572ae15263bdf40551646e14f620f410861ac5a23d208f9fad2e9fb3191",
    ),
    Source(
        name="VerbAgg",
        what="316 persons' answers to 24 items on verbal aggression (y = 1: not 'no')",
        citation=(
            "Vansteelandt, K. (2000). Formal Models for Contextualized Personality "
            "Psychology. Dissertation, K.U. Leuven. Analysed in De Boeck, P. and "
            "Wilson, M., eds (2004). Explanatory Item Response Models. Springer."
        ),
        origin="the book's data, via lme4; y added",
        licence=FACTS,
        sha256="7d13a054b29f79be6bd8c263d3ac56b277a140ce48cb0fe4f9d9164b12d21fc8",
    ),
    Source(
        name="cbpp",
        what="new cases of contagious bovine pleuropneumonia, 15 herds, 4 periods",
        citation=(
            "Lesnoff, M., Laval, G., Bonnet, P., Abdicho, S., Workalemahu, A., Kifle, "
            "D., Peyraud, A., Lancelot, R. and Thiaucourt, F. (2004). Within-herd "
            "spread of contagious bovine pleuropneumonia in Ethiopian highlands. "
            "Preventive Veterinary Medicine 64, 27-40."
        ),
        origin="the authors' data, via lme4; obs (row number) added",
        licence=FACTS,
        sha256="cea950ef2517a445fcb5159b4bfa49c830ba54434c9c49191f1ef0f2d5f4e4fa",
    ),
    Source(
        name="dietox",
        what="weights of 72 pigs in litters over 12 weeks, by vitamin E and copper",
        citation=(
            "Lauridsen, C., Hojsgaard, S. and Sorensen, M. T. (1999). Influence of "
            "dietary rapeseed oil, vitamin E, and copper on the performance and the "
            "antioxidative and oxidative status of pigs. Journal of Animal Science "
            "77, 906-916."
        ),
        origin="the authors' data, via geepack",
        licence=FACTS,
        sha256="f3ae4ac242dfe27202cece1993f475fa8dd385884feba73481a63d1591181383",
    ),
    Source(
        name="epil2",
        what="seizures of 59 patients in 4 periods, placebo or progabide",
        citation=(
            "Thall, P. F. and Vail, S. C. (1990). Some covariance models for "
            "longitudinal count data with overdispersion. Biometrics 46, 657-671."
        ),
        origin="a table of the paper, via glmmTMB; Visit, Base, Age derived from it",
        licence=FACTS,
        sha256="53d48c1b23545f3d9e99e152d3f7c640d69161ad529b6ef3b2d4707a2bd6f4d4",
    ),
    Source(
        name="grouseticks",
        what="ticks on 403 red grouse chicks, broods in locations, three years",
        citation=(
            "Elston, D. A., Moss, R., Boulinier, T., Arrowsmith, C. and Lambin, X. "
            "(2001). Analysis of aggregation, a worked example: numbers of ticks on "
            "red grouse chicks. Parasitology 122, 563-569."
        ),
        origin="the authors' data, via lme4",
        licence=FACTS,
        sha256="717ae99a14e59a2ece96838a4a9f6e19eb58f2607a8c158cb5737bbb175637a2",
    ),
    Source(
        name="ohio",
        what="wheeze of 537 children at 4 ages (years - 9), by maternal smoking",
        citation=(
            "Fitzmaurice, G. M. and Laird, N. M. (1993). A likelihood-based method "
            "for analysing longitudinal binary responses. Biometrika 80, 141-151."
        ),
        origin="a table of the paper (the Six Cities study), via geepack",
        licence=FACTS,
        sha256="35cec32a50ff5b9d36d8069b8f280136735203b180b1c00eb1b109c7e460068e",
    ),
    Source(
        name="sleepstudy",
        what="reaction times of 18 subjects over 10 days of sleep deprivation",
        citation=(
            "Belenky, G., Wesensten, N. J., Thorne, D. R., Thomas, M. L., Sing, H. "
            "C., Redmond, D. P., Russo, M. B. and Balkin, T. J. (2003). Patterns of "
            "performance degradation and restoration during sleep restriction and "
            "subsequent recovery: a sleep dose-response study. Journal of Sleep "
            "Research 12, 1-12."
        ),
        origin="the authors' data, via lme4",
        licence=FACTS,
        sha256="f70737a6c4246c6b42d8b7eb21d99a91460a50ce5fcab81ed2567bc9fc30193e",
    ),
)
