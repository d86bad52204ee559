# Levels left out of a generalised model. lme4's influence() refits with glmer's default inner
# tolerance, which moves coefficients by 1e-3 standard errors; here it is tight. Cook's distance is
# lme4's, d' V^-1 d (n - p) / (n p). Run in this folder: Rscript influence_cbpp.R
suppressMessages({library(lme4); library(jsonlite)})
tight <- glmerControl(optimizer = "bobyqa", tolPwrss = 1e-10,
                      optCtrl = list(rhobeg = 0.2, rhoend = 1e-10, maxfun = 1e5))
m <- glmer(cbind(incidence, size - incidence) ~ period + (1 | herd), cbpp, binomial, control = tight)
V <- as.matrix(vcov(m)); p <- nrow(V); herds <- levels(cbpp$herd); n <- length(herds)
beta <- t(sapply(herds, function(h) fixef(update(m, data = subset(cbpp, herd != h)))))
d <- sweep(beta, 2, fixef(m))
cook <- apply(d, 1, function(x) sum(x * solve(V, x))) * (n - p) / (n * p)
write_json(list(levels = herds, dfbeta = unname(-d), cook = unname(cook)), "influence_cbpp.json",
           digits = 12, auto_unbox = TRUE)
