# Power by simulation in lme4 and lmerTest: Poisson counts (the example of simr, Green and MacLeod 2016,
# whose data the first lines make: fixef(x) = -0.1148147 as published) and sleepstudy with a smaller slope.
# 2,000 simulations each; the share of p < 0.05. Run in this folder: Rscript power.R
suppressMessages({library(lme4); library(lmerTest); library(jsonlite)})
set.seed(123)
d <- data.frame(x = rep(1:10, times = 3), g = factor(rep(c("a", "b", "c"), each = 10)))
re <- rnorm(3, 0, 3); names(re) <- levels(d$g)
d$y <- 10 - 0.25 * d$x + re[d$g] + rnorm(30); d$z <- rpois(30, exp((10 - 0.25 * d$x + re[d$g]) / 10))
m <- glmer(z ~ x + (1 | g), d, poisson)
n <- 2000
share <- function(p) list(n = n, successes = sum(p < 0.05, na.rm = TRUE), failed = sum(is.na(p)))
counts <- function(table, seed) {
  Z <- simulate(~ x + (1 | g), nsim = n, seed = seed, newdata = table, family = poisson,
                newparams = list(beta = unname(c(fixef(m)[1], -0.05)), theta = getME(m, "theta")))
  one <- NULL
  vapply(Z, function(z) tryCatch(suppressMessages(suppressWarnings({
    one <<- if (is.null(one)) glmer(z ~ x + (1 | g), transform(table, z = z), poisson) else refit(one, z)
    summary(one)$coefficients["x", 4] })), error = function(e) NA_real_), 0)
}
d20 <- data.frame(x = rep(1:20, 3), g = factor(rep(c("a", "b", "c"), each = 20)))
out <- list(data = list(x = d$x, g = as.character(d$g), z = d$z), sd = unname(getME(m, "theta")),
  beta = unname(fixef(m)), effect = -0.05, counts = share(counts(d, 1)), counts_20 = share(counts(d20, 2)))
# the authors' own shares of 1,000 (their tables)
out$published <- list(counts = 324, counts_20 = 955, counts_within_2 = 580, counts_within_5 = 918)
s <- lme4::lmer(Reaction ~ Days + (Days | Subject), sleepstudy)
values <- list(beta = unname(c(fixef(s)[1], 4)), theta = getME(s, "theta"), sigma = sigma(s))
Y <- simulate(~ Days + (Days | Subject), nsim = n, seed = 3, newdata = sleepstudy, newparams = values, family = gaussian)
t <- z <- rep(NA_real_, n)
full <- lmerTest::lmer(Reaction ~ Days + (Days | Subject), sleepstudy)
big <- lme4::lmer(Reaction ~ Days + (Days | Subject), sleepstudy, REML = FALSE)
small <- lme4::lmer(Reaction ~ 1 + (Days | Subject), sleepstudy, REML = FALSE)
for (i in seq_len(n)) suppressMessages(suppressWarnings({
  t[i] <- tryCatch(summary(lmerTest::lmer(y ~ Days + (Days | Subject), transform(sleepstudy, y = Y[[i]])))$coefficients["Days", 5], error = function(e) NA)
  z[i] <- tryCatch(pchisq(2 * (logLik(refit(big, Y[[i]])) - logLik(refit(small, Y[[i]]))), 1, lower.tail = FALSE), error = function(e) NA) }))
out$slope <- list(values = list(beta = unname(values$beta), sd = unname(attr(VarCorr(s)$Subject, "stddev")),
  cor = attr(VarCorr(s)$Subject, "correlation")[1, 2], sigma = sigma(s)), t = share(t), lrt = share(z))
write_json(out, "power.json", auto_unbox = TRUE, digits = 10)
